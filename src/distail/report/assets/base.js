"use strict";

// What all charts share: axes, marks, tooltips, and the list of charts that are drawn anew together.
const distail = (() => {
  const data = JSON.parse(document.getElementById("distail-data").textContent);
  const shown = data.runs.map(() => true);
  const charts = [];
  const colour = (run) => `var(--series-${run})`;
  const number = (value, digits = 1) => value.toFixed(digits);
  const signed = (value, digits = 1) => {
    const size = number(Math.abs(value), digits);
    return (value < 0 && Number(size) ? "−" : "+") + size;
  };
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
      const swatch = document.querySelector(`.chip[data-run="${run}"] .symbol`)?.cloneNode(true) ?? "";
      box.append(element("span", null, swatch, element("i", data.runs[run].name), element("em", value)));
    }
    return box;
  };
  const plainTip = (title, detail, lines) => {
    const box = element("div", null, element("b", title), element("small", detail));
    box.className = "tip";
    for (const [name, value] of lines) box.append(element("span", null, element("i", name), element("em", value)));
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

  // A line from low to high with caps, through a mark or the end of a bar.
  const whisker = (from, to, at, size) =>
    [from, to].map((value) => ({ coord: [value, at], symbol: "path://M0 0H1V10H0Z", symbolSize: [1.4, size] }));
  const upright = (from, to, at, size) =>
    [from, to].map((value) => ({ coord: [at, value], symbol: "path://M0 0H10V1H0Z", symbolSize: [size, 1.4] }));
  const whiskers = (pairs) => ({
    silent: true,
    animation: false,
    symbolRotate: 0,
    label: { show: false },
    emphasis: { disabled: true },
    lineStyle: { color: "var(--ink)", width: 1.4, type: "solid" },
    data: pairs,
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

  return { data, shown, charts, colour, number, signed, range, text, axis, percentAxis, marks, line, tip, plainTip, tooltip, whisker, upright, whiskers, add };
})();
