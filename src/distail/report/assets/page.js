"use strict";

// What the page does: draw its charts, tell what lies under the pointer, hide models, print, sort and find.
(() => {
  const { runs, charts } = JSON.parse(document.getElementById("distail-data").textContent);
  const shown = new Set(runs.keys());
  const views = new Map();

  // Names come from users: they only ever become text nodes, never markup.
  const element = (tag, content, ...children) => {
    const node = document.createElement(tag);
    node.textContent = content;
    node.append(...children);
    return node;
  };

  const tip = document.body.appendChild(element("div", ""));
  tip.className = "tip";
  tip.hidden = true;
  const tell = (_, event, item, found) => {
    tip.hidden = !found?.told;
    if (tip.hidden) return;
    const lines = found.told.filter(([run]) => typeof run === "string" || shown.has(run));
    const line = ([run, text]) => {
      const symbol = document.querySelector(`.chip[data-run="${run}"] .symbol`)?.cloneNode(true) ?? "";
      return element("span", "", symbol, element("i", runs[run] ?? run), element("em", text));
    };
    tip.replaceChildren(element("b", found.title), element("small", found.detail), ...lines.map(line));
    const { clientX: x, clientY: y } = event;
    const left = x + 16 + tip.offsetWidth > document.body.clientWidth ? x - 16 - tip.offsetWidth : x + 16;
    const top = Math.min(y + 16, innerHeight - tip.offsetHeight - 4);
    tip.style.translate = `${Math.max(4, left)}px ${Math.max(4, top) + scrollY}px`;
  };

  // Colors are CSS variables, so that light, dark and paper need no second drawing.
  const fit = (place, width = place.clientWidth) => {
    if (width) views.get(place).signal("room", width).width(width).run();
  };
  for (const place of document.querySelectorAll(".chart")) {
    const dataflow = vega.parse(charts[place.id.replace("chart-", "")], null, { ast: true });
    const view = new vega.View(dataflow, { renderer: "svg", container: place, hover: true, expr: vegaInterpreter.expressionInterpreter });
    views.set(place, view.tooltip(tell));
    fit(place);
    place.querySelector("svg").setAttribute("aria-hidden", "true"); // the place has a name that says all
  }
  let fitted = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth !== fitted) views.forEach((_, place) => fit(place));
    fitted = innerWidth;
  });

  // Paper is narrower than most windows: charts are drawn anew for it, so that their letters keep their size.
  const opened = [];
  addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details.printed:not([open])")) {
      details.open = true;
      opened.push(details);
    }
    views.forEach((_, place) => fit(place, place.closest(".pair") ? 320 : place.classList.contains("square") ? 420 : 660));
  });
  addEventListener("afterprint", () => {
    for (const details of opened.splice(0)) details.open = false;
    views.forEach((_, place) => fit(place));
  });

  for (const chip of document.querySelectorAll(".chip")) {
    chip.addEventListener("click", () => {
      const run = Number(chip.dataset.run);
      if (!shown.delete(run)) shown.add(run);
      for (const same of document.querySelectorAll(`.chip[data-run="${run}"]`)) {
        same.setAttribute("aria-pressed", String(shown.has(run)));
      }
      for (const view of views.values()) view.signal("shown", [...shown]).run();
    });
  }

  // Numbers sort from the largest first, words from A; what was not measured stays at the end either way.
  for (const table of document.querySelectorAll("table.sortable")) {
    const body = table.tBodies[0];
    for (const button of table.querySelectorAll(".sort")) {
      button.addEventListener("click", () => {
        const header = button.closest("th");
        const column = header.cellIndex;
        const numeric = header.classList.contains("number");
        const before = header.getAttribute("aria-sort");
        const direction = before ? (before === "ascending" ? "descending" : "ascending") : numeric ? "descending" : "ascending";
        for (const other of table.querySelectorAll("[aria-sort]")) other.removeAttribute("aria-sort");
        header.setAttribute("aria-sort", direction);
        const sign = direction === "ascending" ? 1 : -1;
        const key = (row) => (numeric ? row.cells[column].dataset.value : row.cells[column].textContent);
        const compare = (a, b) => {
          if (numeric && (a === "" || b === "")) return (a === "") - (b === "");
          return sign * (numeric ? Number(a) - Number(b) : a.localeCompare(b, undefined, { numeric: true }));
        };
        body.append(...[...body.rows].sort((a, b) => compare(key(a), key(b))));
      });
    }
  }

  const find = document.getElementById("find");
  find?.addEventListener("input", () => {
    const wanted = find.value.trim().toLocaleLowerCase();
    const rows = [...document.getElementById("class-table").tBodies[0].rows];
    for (const row of rows) row.hidden = !row.cells[0].textContent.toLocaleLowerCase().includes(wanted);
    const found = rows.filter((row) => !row.hidden).length;
    document.getElementById("found").textContent = wanted ? `${found} of ${rows.length} classes` : "";
  });
})();
