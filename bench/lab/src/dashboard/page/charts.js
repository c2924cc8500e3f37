// Drawing: one figure a panel, with a readout, a table of the same figures, and accessible names.
const charts = [];
const css = (variable) => getComputedStyle(document.documentElement).getPropertyValue(variable).trim();
const el = (tag, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
};
const DASHES = [[], [7, 3], [2, 3], [9, 3, 2, 3], [4, 2], [1, 2]];
const HEIGHT = 210;
const END_ROOM = 58;
const LEAST_GAP = 12;
const POINT = 7;

// A value at the end of each line, moved up where two would cover each other.
function drawEnds(rows, digits, unit) {
  return (u) => {
    const ratio = devicePixelRatio;
    const ends = rows.map((row, index) => {
      let last = row.values.length - 1;
      while (last >= 0 && row.values[last] === null) last -= 1;
      return { index, last, y: last < 0 ? 0 : u.valToPos(clamp(u, row.values[last]), "y", true) };
    }).filter((end) => end.last >= 0 && u.series[end.index + 1].show).sort((a, b) => b.y - a.y);
    let least = Infinity;
    u.ctx.save();
    u.ctx.font = `600 ${11 * ratio}px system-ui, sans-serif`;
    u.ctx.textBaseline = "middle";
    u.ctx.textAlign = "left";
    for (const end of ends) {
      const y = Math.min(end.y, least);
      least = y - LEAST_GAP * ratio;
      u.ctx.fillStyle = css(`--s${rows[end.index].name.style}`);
      u.ctx.fillText(fixed(rows[end.index].values[end.last], digits) + unit, u.valToPos(u.data[0][end.last], "x", true) + 7 * ratio, y);
    }
    u.ctx.restore();
  };
}

// Points that are not to be trusted, hollow; the others are uPlot's.
function drawHollow(rows) {
  return (u) => {
    const ratio = devicePixelRatio;
    u.ctx.save();
    rows.forEach((row, index) => row.values.forEach((value, at) => {
      if (value === null || !row.suspect?.[at] || !u.series[index + 1].show) return;
      u.ctx.beginPath();
      u.ctx.arc(u.valToPos(u.data[0][at], "x", true), u.valToPos(clamp(u, value), "y", true), POINT / 2 * ratio, 0, 2 * Math.PI);
      u.ctx.fillStyle = css("--panel");
      u.ctx.strokeStyle = css(`--s${row.name.style}`);
      u.ctx.lineWidth = 1.5 * ratio;
      u.ctx.fill();
      u.ctx.stroke();
    }));
    u.ctx.restore();
  };
}
const clamp = (u, value) => Math.max(value, u.scales.y.min ?? value);

function yScale(kind, rows) {
  const highest = Math.max(...rows.flatMap((row) => row.values).filter((v) => v !== null), kind === "lines" ? 0.1 : 1);
  if (kind === "lines") {
    const range = () => [0, highest * 1.1];
    return state.log ? { distr: 4, asinh: 0.1, range } : { range };
  }
  if (kind === "history") return {};
  // All panels of slowdowns have the same scale, so that a glance compares them.
  const most = Math.max(2, ...here().filter((r) => isOperation(r.workload) && !state.hidden.has(nameOf(r))).map((r) => r.slowdown ?? 1), highest);
  return state.log ? { distr: 3, log: 2, range: () => [0.9, 2 ** Math.ceil(Math.log2(most))] } : { range: () => [0, most * 1.05] };
}

function axes(kind, counts, highest) {
  const common = { stroke: css("--dim"), grid: { stroke: css("--grid"), width: 1 }, ticks: { stroke: css("--grid") }, font: "11px system-ui, sans-serif" };
  const x = kind === "history"
    ? { ...common, splits: () => counts, values: () => counts.map((i) => (counts.length <= 8 || i % Math.ceil(counts.length / 8) === 0 ? D.runs[i] ?? "" : "")) }
    : { ...common, splits: () => counts, filter: (u, splits) => splits, values: (u, splits) => splits.map(String), label: "CPUs", labelSize: 16, labelFont: "11px system-ui, sans-serif", size: 28 };
  const y = { ...common, size: 46 };
  if (kind === "slowdown") y.values = (u, splits) => splits.map((v) => (v === null ? "" : `${v}×`));
  if (kind === "slowdown" && state.log) {
    y.splits = () => Array.from({ length: Math.max(2, Math.ceil(Math.log2(highest)) + 1) }, (_, i) => 2 ** i);
    y.filter = (u, splits) => splits.filter((v) => v <= u.scales.y.max * 1.001);
  }
  if (kind === "lines" && state.log) {
    y.splits = () => [0, 0.1, 1, 10, 100, 1000].filter((v) => v <= highest * 1.1);
    y.filter = (u, splits) => splits;
  }
  return [x, y];
}

// options: kind, title, counts, rows [{name, values, suspect}], digits, unit, band {low, high}, choose(name, count)
function chart(parent, options) {
  const { kind, title, counts, rows } = options;
  const digits = options.digits ?? 2;
  const unit = options.unit ?? "";
  const last = (row) => row.values.reduce((found, v, i) => (v === null ? found : i), 0);
  const told = rows.map((row) => `${row.name.label} ${fixed(row.values[last(row)], digits)}${unit} at ${counts[last(row)]} ${kind === "history" ? "" : "CPUs"}`).join("; ");
  const figure = el("figure", { "aria-label": `${title}: ${told}`, "data-kind": kind, "data-title": title });
  const readout = el("div", { class: "readout dim" }, "\u00a0");
  const place = el("div", { role: "img", "aria-label": `Chart of ${title}: ${told}` });
  figure.append(el("h3", {}, title), readout, place, figures(options));
  parent.append(figure);
  const scale = yScale(kind, rows);
  const highest = Math.max(scale.range ? scale.range()[1] : 0, ...rows.flatMap((row) => row.values).filter((v) => v !== null));
  const series = rows.map((row) => {
    const stroke = css(`--s${row.name.style}`);
    return { label: row.name.label, stroke, width: 2.2, dash: DASHES[row.name.style % DASHES.length], spanGaps: true,
      points: { show: true, size: POINT, stroke, fill: stroke, filter: () => counts.map((_, at) => at).filter((at) => row.values[at] !== null && !row.suspect?.[at]) } };
  });
  const data = [counts, ...rows.map((row) => row.values.map((v) => (v === null ? null : kind === "slowdown" && state.log ? Math.max(v, 0.9) : v)))];
  const bands = [];
  if (options.band) {
    data.push(counts.map(() => options.band.low), counts.map(() => options.band.high));
    const edge = { stroke: css("--s3"), width: 1, dash: [3, 3], points: { show: false }, label: "gate" };
    series.push(edge, edge);
    bands.push({ series: [data.length - 1, data.length - 2], fill: css("--band") });
  }
  const u = new uPlot({
    width: place.clientWidth || 300, height: HEIGHT, padding: [10, END_ROOM, 0, 0],
    scales: { x: kind === "history" ? { time: false, range: () => [-0.5, Math.max(0.5, counts.length - 0.5)] } : { time: false, distr: 3, log: 2, range: () => [counts[0], Math.max(counts[counts.length - 1], counts[0] * 2)] }, y: scale },
    axes: axes(kind, counts, highest), series: [{ label: "CPUs" }, ...series], bands, legend: { show: false },
    cursor: { drag: { x: false, y: false }, y: false, points: { size: 9 } },
    hooks: { draw: [drawHollow(rows), drawEnds(rows, digits, unit)], setCursor: [(self) => tell(self, readout, options)] },
  }, data, place);
  u.over.addEventListener("click", () => {
    const index = u.cursor.idx;
    if (index === null || index === undefined || !options.choose) return;
    const near = rows.map((row) => ({ row, far: row.values[index] === null ? Infinity : Math.abs(u.valToPos(clamp(u, row.values[index]), "y") - u.cursor.top) })).sort((a, b) => a.far - b.far)[0];
    if (near && near.far < Infinity) options.choose(near.row.name, counts[index]);
  });
  charts.push({ kind, title, u, rows, counts, place, figure });
  return figure;
}

function tell(u, readout, { rows, counts, digits = 2, unit = "", kind }) {
  const index = u.cursor.idx;
  if (index === null || index === undefined || u.cursor.left < 0) { readout.replaceChildren("\u00a0"); return; }
  readout.replaceChildren(kind === "history" ? `${D.runNotes[counts[index]] ?? ""}: ` : `${counts[index]} CPUs: `);
  rows.forEach((row) => {
    const value = el("b", { style: `--c: var(--s${row.name.style})` }, `${fixed(row.values[index], digits)}${unit}`);
    readout.append(`${row.name.label} `, value, row.suspect?.[index] ? " (not to be trusted) " : " ");
  });
}

// The same figures as a table, for those who cannot see the chart or want to copy.
function figures({ title, counts, rows, digits = 2, choose, kind }) {
  const doubt = (row, index) => (row.suspect?.[index] ? ", not to be trusted" : "");
  const head = el("tr", {}, el("th", { scope: "col" }, kind === "history" ? "run" : "CPUs"), ...counts.map((c) => el("th", { scope: "col" }, kind === "history" ? D.runs[c] ?? "" : String(c))));
  const body = rows.map((row) => el("tr", { "data-name": row.name.key }, el("th", { scope: "row" }, row.name.label), ...row.values.map((value, index) => {
    const cell = el("td", { "data-cpus": counts[index], "data-value": value ?? "" });
    if (value === null || !choose) { cell.append(fixed(value, digits)); return cell; }
    const button = el("button", { type: "button", "aria-label": `${row.name.label}, ${counts[index]} CPUs: ${fixed(value, digits)}${doubt(row, index)}; why?` }, fixed(value, digits) + (doubt(row, index) && "?"));
    button.addEventListener("click", () => choose(row.name, counts[index]));
    cell.append(button);
    return cell;
  })));
  const table = el("table", { "aria-label": title }, el("thead", {}, head), el("tbody", {}, ...body));
  return el("details", {}, el("summary", {}, "figures as a table"), el("div", { class: "scroll" }, table));
}
