"use strict";

// One function a chart: from the data and a width to what ECharts draws.
(() => {
  const { data, shown, colour, number, signed, range, text, axis, percentAxis, marks, line, tip, plainTip, tooltip } = distail;
  const { whisker, upright, whiskers, add } = distail;

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

  const groupChart = (grouping) => (width) => {
    const { names, sizes, values, missing, deviations } = data.groups[grouping];
    const visible = range(values.length).filter((run) => shown[run] && values[run]);
    const right = deviations.flat().some((deviation) => deviation !== null) ? 88 : 46;
    const upTo = (run, i) => Math.min(100, values[run][i] + (deviations[run][i] ?? 0));
    const spread = (run, i) => (deviations[run][i] === null ? "" : ` ± ${number(deviations[run][i])}`);
    const classes = (i) => (sizes[i] === 1 ? "1 class" : `${sizes[i] || "no"} classes`);
    return {
      grid: { left: 74, right, top: 6, bottom: 24 },
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
            values[run][i] === null ? missing[i] : `${number(values[run][i])}${spread(run, i)} %`;
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
          label: { distance: 5 + ((upTo(run, i) - value) / 100) * (width - 74 - right) },
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
            if (values[run][i] === null) return missing[i];
            const name = width > 480 && upTo(run, i) < 70 ? `  ${data.runs[run].name}` : "";
            return number(values[run][i]) + spread(run, i) + name;
          },
        },
        markLine: whiskers(
          range(names.length)
            .filter((i) => values[run][i] !== null && deviations[run][i] !== null)
            .map((i) => whisker(Math.max(0, values[run][i] - deviations[run][i]), upTo(run, i), i, 7)),
        ),
      })),
    };
  };

  // The methods below one another, each with its difference to the baseline and the interval around it.
  const differenceChart = ({ rows }) => (width) => {
    const visible = rows.filter(([run]) => shown[run]);
    const ends = visible.flatMap(([, value, low, high]) => [value, low ?? value, high ?? value, 0]);
    const reach = Math.max(0.5, ...ends.map(Math.abs)) * 1.05;
    const steps = width < 400 ? 2 : 4;
    const step = [0.25, 0.5, 1, 2, 2.5, 5, 10, 20, 25, 50].find((step) => steps * step >= reach) ?? 50;
    const edge = step * Math.ceil(reach / step);
    const wide = Math.min(150, Math.max(60, width * 0.3));
    return {
      grid: { left: wide, right: 16, top: 8, bottom: 26 },
      xAxis: axis({
        type: "value",
        min: -edge,
        max: edge,
        interval: step,
        splitLine: { lineStyle: { color: "var(--line)" } },
        axisLabel: { formatter: (value) => (value ? signed(value, step % 1 ? (step * 10) % 1 ? 2 : 1 : 0) : "0") },
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
          const [run, value, low, high, doubt] = visible[dataIndex];
          const between = low === null ? "no interval" : `95 % interval ${signed(low)} to ${signed(high)}`;
          return tip(data.runs[run].name, between + (doubt ? `, ${doubt}` : ""), [[run, signed(value)]]);
        },
      }),
      series: [
        {
          type: "scatter",
          z: 3,
          data: visible.map(([run, value, , , doubt], i) => ({
            value: [value, i],
            ...marks(run, 12),
            itemStyle: { color: doubt ? "var(--paper)" : colour(run), borderColor: colour(run), borderWidth: 1.6 },
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

  // Each model's test images of tail classes, split by where they end.
  const flowChart = (width) => {
    const { outcomes, titles, tail } = data.flow;
    const visible = range(tail.length).filter((run) => shown[run] && tail[run]);
    const wide = Math.min(150, Math.max(60, width * 0.24));
    return {
      grid: { left: wide, right: 14, top: 4, bottom: 26 },
      xAxis: percentAxis({ axisLabel: { formatter: "{value} %" } }),
      yAxis: axis({
        type: "category",
        inverse: true,
        data: visible.map((run) => data.runs[run].name),
        axisLabel: { color: "var(--ink)", fontSize: 13, width: wide - 12, overflow: "truncate" },
      }),
      tooltip: tooltip({
        trigger: "axis",
        axisPointer: { type: "none" },
        formatter: (items) => {
          const run = visible[items[0].dataIndex];
          const value = (i) => (tail[run][i] === null ? "no such class" : `${number(tail[run][i])} %`);
          return plainTip(data.runs[run].name, "test images of tail classes", titles.map((title, i) => [title, value(i)]));
        },
      }),
      series: outcomes.map((outcome, i) => ({
        type: "bar",
        stack: "tail",
        name: titles[i],
        barMaxWidth: 26,
        data: visible.map((run) => tail[run][i] ?? 0),
        itemStyle: { color: `var(--flow-${outcome})`, borderColor: "var(--paper)", borderWidth: 1 },
        label: {
          show: true,
          color: `var(--on-flow-${outcome})`,
          fontSize: 12,
          formatter: ({ value }) => (value * (width - wide) >= 2800 ? number(value) : ""),
        },
      })),
    };
  };

  const seconds = (longest) =>
    longest >= 7200 ? ["hours of training", 3600] : longest >= 240 ? ["minutes of training", 60] : ["seconds of training", 1];

  const costChart = (what) => () => {
    const points = data.cost[what];
    const visible = range(points.length).filter((run) => shown[run] && points[run]);
    const costs = visible.map((run) => points[run][0]);
    const lows = visible.map((run) => points[run][1] - points[run][2]);
    const highs = visible.map((run) => points[run][1] + points[run][2]);
    const [name, unit] = what === "seconds" ? seconds(Math.max(0, ...costs)) : ["parameters, millions", 1];
    const wide = costs.length > 1 && Math.max(...costs) > 20 * Math.min(...costs);
    return {
      grid: { left: 46, right: 24, top: 14, bottom: 46 },
      xAxis: axis({
        type: wide ? "log" : "value",
        min: wide ? undefined : 0,
        boundaryGap: wide ? undefined : [0, "18%"],
        splitNumber: 4,
        name: wide ? `${name} (logarithmic)` : name,
        nameLocation: "middle",
        nameGap: 28,
        axisLabel: { hideOverlap: true },
      }),
      yAxis: axis({
        type: "value",
        min: Math.max(0, Math.floor(Math.min(...lows) - 0.5)),
        max: Math.min(100, Math.ceil(Math.max(...highs) + 0.5)),
        splitNumber: 4,
        splitLine: { lineStyle: { color: "var(--line)" } },
        axisLabel: { formatter: (value) => `${Number(value.toFixed(1))} %` },
      }),
      tooltip: tooltip({
        trigger: "item",
        formatter: ({ seriesIndex }) => {
          const run = visible[seriesIndex];
          const [cost, accuracy, deviation] = points[run];
          const spread = deviation ? ` ± ${number(deviation)}` : "";
          const value = `${number(accuracy)}${spread} %`;
          return tip("Balanced accuracy", `${number(cost / unit, 2)} ${name}`, [[run, value]]);
        },
      }),
      series: visible.map((run) => {
        const [cost, accuracy, deviation] = points[run];
        return {
          type: "scatter",
          data: [[cost / unit, accuracy]],
          ...marks(run, 12),
          label: { show: true, position: "right", formatter: () => data.runs[run].name, color: "var(--ink)", fontSize: 12 },
          labelLayout: { hideOverlap: true },
          markLine: whiskers(
            deviation ? [upright(accuracy - deviation, accuracy + deviation, cost / unit, 7)] : [],
          ),
        };
      }),
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
  const models = (known) => known.filter((values) => values).length;
  add("flow", flowChart, 36 + 34 * models(data.flow.tail));
  add("cost-parameters", costChart("parameters"));
  add("cost-seconds", costChart("seconds"));
  add("loss", curveChart("loss", ""));
  add("validation", curveChart("validation", " %"));
  add("reliability", reliabilityChart);
})();
