"use strict";
(() => {
  const data = JSON.parse(document.getElementById("distail-data").textContent);
  const shown = data.runs.map(() => true);
  const charts = [];
  const colour = (run) => `var(--series-${run})`;
  const number = (value, digits = 1) => value.toFixed(digits);
  const range = (length) => Array.from({ length }, (_, i) => i);

  // Colours are CSS variables, so that light, dark and paper need no second drawing.
  const text = { color: "var(--soft)", fontFamily: getComputedStyle(document.body).fontFamily, fontSize: 12 };
  const axis = (options) => ({
    nameTextStyle: text,
    axisLine: { show: false },
    axisTick: { show: false },
    splitLine: { show: false },
    ...options,
    axisLabel: { ...text, ...options.axisLabel },
  });
  const percentAxis = (options) =>
    axis({
      type: "value",
      min: 0,
      max: 100,
      interval: 25,
      splitLine: { lineStyle: { color: "var(--line)" } },
      ...options,
    });
  const marks = (run, size) => ({
    symbol: `path://${data.runs[run].path}`,
    symbolSize: size,
    itemStyle: {
      color: data.runs[run].filled ? colour(run) : "var(--paper)",
      borderColor: colour(run),
      borderWidth: data.runs[run].filled ? 0 : 1.4,
    },
  });
  const line = (run, points) => ({
    type: "line",
    data: points,
    lineStyle: { color: colour(run), width: 2.2, type: data.runs[run].dash.length ? data.runs[run].dash : "solid" },
    ...marks(run, 7),
  });

  // Names come from users: they only ever become text nodes, never markup.
  const element = (tag, content, ...children) => {
    const node = document.createElement(tag);
    if (content !== null) node.textContent = content;
    node.append(...children);
    return node;
  };
  const tip = (title, detail, lines) => {
    const box = element("div", null, element("b", title), element("small", detail));
    box.className = "tip";
    for (const [run, value] of lines) {
      const swatch = document.querySelector(`.chip[data-run="${run}"] .symbol`).cloneNode(true);
      box.append(element("span", null, swatch, element("i", data.runs[run].name), element("em", value)));
    }
    return box;
  };
  const tooltip = (options) => ({
    confine: true,
    transitionDuration: 0,
    backgroundColor: "var(--paper)",
    borderColor: "var(--line)",
    borderWidth: 1,
    padding: [8, 12],
    extraCssText: "box-shadow: 0 4px 18px rgb(0 0 0 / .14); border-radius: 8px; max-width: 20rem; white-space: normal;",
    textStyle: { color: "var(--ink)", fontSize: 13, fontFamily: text.fontFamily },
    ...options,
  });

  const bars = Math.max(1, data.groups.thirds.values.filter((values) => values).length);
  const add = (name, option, height = 60 + 3 * Math.max(44, 21 * bars)) => {
    const place = document.getElementById(`chart-${name}`);
    if (!place) return;
    if (place.classList.contains("bars")) place.style.height = `${height}px`;
    const chart = echarts.init(place, null, { renderer: "svg" });
    const draw = (width = place.clientWidth) =>
      chart.setOption({ animation: false, textStyle: text, ...option(width) }, { notMerge: true });
    charts.push({ chart, draw, place });
  };

  const recallChart = (width) => {
    const { names, counts, cuts, window, points, ticks, recalls, means } = data.recall;
    const ranks = width < 560 ? ticks.narrow : ticks.wide;
    const thirds = [0, cuts[0], cuts[1], names.length];
    const visible = range(recalls.length).filter((run) => shown[run] && recalls[run]);
    const pairs = (values) => values.map((value, rank) => [rank, value]).filter(([, value]) => value !== null);
    const series = visible.flatMap((run) => {
      const mean = { ...line(run, pairs(means[run])), z: 3, showSymbol: window === 1, silent: window > 1 };
      const single = { type: "scatter", data: pairs(recalls[run]), ...marks(run, width < 560 ? 5 : 7), z: 2 };
      single.itemStyle = { ...single.itemStyle, opacity: 0.5 };
      return window > 1 && points ? [single, mean] : [mean];
    });
    const bands = {
      type: "line",
      data: [],
      silent: true,
      markArea: {
        data: ["head", "medium", "tail"].map((name, i) => [
          {
            name,
            xAxis: thirds[i] - 0.5,
            itemStyle: { color: i === 1 ? "var(--band)" : "transparent" },
            label: { position: "insideTop", distance: -18, ...text },
          },
          { xAxis: thirds[i + 1] - 0.5 },
        ]).filter(([from, to]) => from.xAxis < to.xAxis),
      },
    };
    return {
      grid: { left: 40, right: 12, top: 26, bottom: 46 },
      xAxis: axis({
        type: "value",
        min: -0.5,
        max: names.length - 0.5,
        name: "training images in the class",
        nameLocation: "middle",
        nameGap: 28,
        axisLabel: { customValues: ranks, formatter: (rank) => counts[Math.round(rank)].toLocaleString("en") },
      }),
      yAxis: percentAxis({ axisLabel: { formatter: "{value} %" } }),
      tooltip: tooltip({
        trigger: "axis",
        axisPointer: { type: "line", snap: true, label: { show: false }, lineStyle: { color: "var(--soft)" } },
        formatter: (items) => {
          const rank = Math.round(items[0].axisValue);
          const images = `${counts[rank].toLocaleString("en")} training images`;
          const value = (run) => (recalls[run][rank] === null ? "no test image" : `${number(recalls[run][rank])} %`);
          return tip(names[rank], images, visible.map((run) => [run, value(run)]));
        },
      }),
      series: [bands, ...series],
    };
  };

  // A line from low to high with caps, through a mark or the end of a bar.
  const whisker = (from, to, at, size) =>
    [from, to].map((value) => ({ coord: [value, at], symbol: "path://M0 0H1V10H0Z", symbolSize: [1.4, size] }));
  const whiskers = (pairs) => ({
    silent: true,
    animation: false,
    symbolRotate: 0,
    label: { show: false },
    emphasis: { disabled: true },
    lineStyle: { color: "var(--ink)", width: 1.4, type: "solid" },
    data: pairs,
  });

  const groupChart = (grouping) => (width) => {
    const { names, sizes, values, deviations } = data.groups[grouping];
    const visible = range(values.length).filter((run) => shown[run] && values[run]);
    const spread = (run, i) => (deviations[run][i] === null ? "" : ` ± ${number(deviations[run][i])}`);
    const classes = (i) => (sizes[i] === 1 ? "1 class" : `${sizes[i] || "no"} classes`);
    return {
      grid: { left: 74, right: 46, top: 6, bottom: 24 },
      xAxis: percentAxis({ axisLabel: { formatter: "{value} %" } }),
      yAxis: axis({
        type: "category",
        inverse: true,
        data: names.map((name, i) => `{name|${name}}\n${classes(i)}`),
        axisLabel: { lineHeight: 15, rich: { name: { color: "var(--ink)", fontSize: 13, lineHeight: 17 } } },
      }),
      tooltip: tooltip({
        trigger: "axis",
        axisPointer: { type: "none" },
        formatter: (items) => {
          const i = items[0].dataIndex;
          const value = (run) =>
            values[run][i] === null ? "no such class" : `${number(values[run][i])}${spread(run, i)} %`;
          return tip(names[i], classes(i), visible.map((run) => [run, value(run)]));
        },
      }),
      series: visible.map((run) => ({
        type: "bar",
        barMaxWidth: 22,
        barCategoryGap: "24%",
        barGap: "12%",
        data: values[run].map((value, i) => ({
          value: value ?? 0,
          label: { distance: 5 + ((deviations[run][i] ?? 0) / 100) * (width - 120) },
        })),
        itemStyle: data.runs[run].filled
          ? { color: colour(run), borderRadius: [0, 3, 3, 0] }
          : { color: "var(--paper)", borderColor: colour(run), borderWidth: 1.5, borderRadius: [0, 3, 3, 0] },
        label: {
          show: true,
          position: "right",
          color: "var(--ink)",
          fontSize: 12,
          formatter: ({ dataIndex: i }) => {
            if (values[run][i] === null) return sizes[i] ? "no test image" : "no such class";
            const name = width > 480 && values[run][i] < 70 ? `  ${data.runs[run].name}` : "";
            return number(values[run][i]) + spread(run, i) + name;
          },
        },
        markLine: whiskers(
          range(names.length)
            .filter((i) => values[run][i] !== null && deviations[run][i] !== null)
            .map((i) => whisker(Math.max(0, values[run][i] - deviations[run][i]), values[run][i] + deviations[run][i], i, 7)),
        ),
      })),
    };
  };

  // The methods below one another, each with its difference to the baseline and the interval around it.
  const differenceChart = ({ rows }) => (width) => {
    const visible = rows.filter(([run]) => shown[run]);
    const ends = visible.flatMap(([, value, low, high]) => [value, low ?? value, high ?? value, 0]);
    const reach = Math.max(1, ...ends.map(Math.abs)) * 1.08;
    const signed = (value) => (value < 0 ? "−" : "+") + number(Math.abs(value));
    const wide = Math.min(150, Math.max(60, width * 0.3));
    return {
      grid: { left: wide, right: 16, top: 8, bottom: 26 },
      xAxis: axis({
        type: "value",
        min: -Math.ceil(reach),
        max: Math.ceil(reach),
        splitNumber: width < 400 ? 2 : 4,
        splitLine: { lineStyle: { color: "var(--line)" } },
        axisLabel: { formatter: (value) => (value ? signed(value) : "0") },
      }),
      yAxis: axis({
        type: "category",
        inverse: true,
        data: visible.map(([run]) => data.runs[run].name),
        axisLabel: { color: "var(--ink)", fontSize: 13, width: wide - 12, overflow: "truncate" },
      }),
      tooltip: tooltip({
        trigger: "item",
        formatter: ({ dataIndex }) => {
          const [run, value, low, high, noise] = visible[dataIndex];
          const between = low === null ? "no interval" : `95 % interval ${signed(low)} to ${signed(high)}`;
          return tip(data.runs[run].name, between + (noise ? ", inside the noise" : ""), [[run, signed(value)]]);
        },
      }),
      series: [
        {
          type: "scatter",
          z: 3,
          data: visible.map(([run, value, , , noise], i) => ({
            value: [value, i],
            ...marks(run, 12),
            itemStyle: { color: noise ? "var(--paper)" : colour(run), borderColor: colour(run), borderWidth: 1.6 },
          })),
          markLine: whiskers(
            visible.flatMap(([, , low, high], i) => (low === null ? [] : [whisker(low, high, i, 9)])),
          ),
        },
        {
          type: "line",
          data: visible.map((_, i) => [0, i]),
          silent: true,
          symbol: "none",
          tooltip: { show: false },
          lineStyle: { color: "var(--soft)", width: 1, type: [2, 4] },
        },
      ],
    };
  };

  const curveChart = (name, unit) => () => {
    const visible = range(data[name].length).filter((run) => shown[run] && data[name][run].length);
    return {
      grid: { left: 46, right: 14, top: 14, bottom: 44 },
      xAxis: axis({ type: "value", min: 1, max: "dataMax", minInterval: 1, name: "epoch", nameLocation: "middle", nameGap: 26 }),
      yAxis: axis({
        type: "value",
        scale: unit !== "",
        splitNumber: 4,
        splitLine: { lineStyle: { color: "var(--line)" } },
        axisLabel: { formatter: `{value}${unit}` },
      }),
      tooltip: tooltip({
        trigger: "axis",
        axisPointer: { type: "line", snap: true, label: { show: false }, lineStyle: { color: "var(--soft)" } },
        formatter: (items) =>
          tip(
            `Epoch ${items[0].axisValue}`,
            "",
            items.map(({ seriesIndex, value }) => [visible[seriesIndex], number(value[1], unit ? 1 : 3) + unit]),
          ),
      }),
      series: visible.map((run) => ({ ...line(run, data[name][run]), showSymbol: data[name][run].length < 25 })),
    };
  };

  const reliabilityChart = () => {
    const visible = range(data.reliability.length).filter((run) => shown[run] && data.reliability[run].length);
    return {
      grid: { left: 48, right: 14, top: 14, bottom: 46 },
      xAxis: percentAxis({ name: "confidence", nameLocation: "middle", nameGap: 28, axisLabel: { formatter: "{value} %" } }),
      yAxis: percentAxis({ axisLabel: { formatter: "{value} %" } }),
      tooltip: tooltip({
        trigger: "item",
        formatter: ({ seriesIndex, value }) =>
          tip(`${number(value[0])} % confident`, `${value[2].toLocaleString("en")} images`, [
            [visible[seriesIndex], `${number(value[1])} % right`],
          ]),
      }),
      series: [
        ...visible.map((run) => ({
          ...line(
            run,
            data.reliability[run].map(([confidence, accuracy, count]) => [100 * confidence, 100 * accuracy, count]),
          ),
          ...marks(run, 9),
        })),
        {
          type: "line",
          data: [
            [0, 0],
            [100, 100],
          ],
          silent: true,
          symbol: "none",
          tooltip: { show: false },
          lineStyle: { color: "var(--soft)", width: 1, type: [2, 4] },
        },
      ],
    };
  };

  data.differences.forEach((item, i) => add(`difference-${i}`, differenceChart(item), 60 + 34 * item.rows.length));
  if (data.recall) add("recall", recallChart);
  add("thirds", groupChart("thirds"));
  add("shots", groupChart("shots"));
  add("loss", curveChart("loss", ""));
  add("validation", curveChart("validation", " %"));
  add("reliability", reliabilityChart);

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
