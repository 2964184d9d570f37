"use strict";

// What the page does: fit, print, hide models, sort, find.
(() => {
  const { shown, charts } = distail;

  const main = document.querySelector("main");
  let fitted = 0;
  const fit = () => {
    if (main.clientWidth === fitted) return;
    fitted = main.clientWidth;
    for (const { chart, draw } of charts) {
      chart.resize();
      draw();
    }
  };
  fit();
  new ResizeObserver(fit).observe(main);

  // Paper is narrower than most windows: charts are drawn anew for it, so that their letters keep their size.
  const opened = [];
  addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details.printed:not([open])")) {
      details.open = true;
      opened.push(details);
    }
    for (const { chart, draw, place } of charts) {
      const width = place.closest(".pair") ? 320 : place.classList.contains("square") ? 420 : 660;
      chart.resize({ width, height: place.clientHeight });
      draw(width);
      chart.getZr().flush(); // the browser takes its picture before the next frame
    }
  });
  addEventListener("afterprint", () => {
    for (const details of opened.splice(0)) details.open = false;
    for (const { chart, draw } of charts) {
      chart.resize({ width: "auto", height: "auto" });
      draw();
    }
  });

  for (const chip of document.querySelectorAll(".chip")) {
    chip.addEventListener("click", () => {
      const run = Number(chip.dataset.run);
      shown[run] = !shown[run];
      for (const same of document.querySelectorAll(`.chip[data-run="${run}"]`)) {
        same.setAttribute("aria-pressed", String(shown[run]));
      }
      for (const { draw } of charts) draw();
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
