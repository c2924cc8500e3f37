// History, controls, and drawing everything anew when something changes.
const historyOf = (entry) => `${entry.system}${entry.system === "linux" ? ` ${entry.system_version}` : ""}${entry.variant === BASELINE ? "" : `, ${entry.variant}`}${entry.profile ? ` (${entry.profile})` : ""}`;

const short = (commit) => (commit ?? "?").slice(0, 7);

function fill(select, values, chosen, label = String) {
  select.replaceChildren(...values.map((value) => el("option", { value }, label(value))));
  if (values.map(String).includes(String(chosen))) select.value = chosen;
}

function historyControls() {
  byId("history-section").hidden = !D.history.length;
  if (!D.history.length) return;
  const systems = [...by(D.history, historyOf).keys()].sort().reverse();
  fill(byId("history-system"), systems, systems.find((s) => s.startsWith("stormcell") && !s.includes(",")));
  fill(byId("history-metric"), D.metrics.map((m) => m.name), "insns", (name) => D.metrics.find((m) => m.name === name).title);
  const counts = [...new Set(D.history.map((entry) => entry.cpus))].sort((a, b) => a - b);
  fill(byId("history-cpus"), counts, 1);
  for (const id of ["history-system", "history-metric", "history-cpus"]) byId(id).addEventListener("change", draw);
}

function historySection() {
  if (!D.history.length) return;
  const parent = byId("history");
  const [system, metric, cpus] = ["history-system", "history-metric", "history-cpus"].map((id) => byId(id).value);
  const chosen = D.history.filter((e) => historyOf(e) === system && e.metric === metric && e.cpus === Number(cpus));
  const about = D.metrics.find((m) => m.name === metric);
  const runs = [...by(D.history.filter((e) => historyOf(e) === system), (e) => e.run)].map(([run, entries]) => ({ run, ts: entries[0].ts, label: short(entries[0].git), note: `${short(entries[0].git)} (${entries[0].ts.slice(0, 10)}; kernel and servers ${short(entries[0].kernel)}, bench ${short(entries[0].bench)})` })).sort((a, b) => a.ts.localeCompare(b.ts));
  D.runs = runs.map((run) => run.label);
  D.runNotes = runs.map((run) => run.note);
  byId("history-limits").textContent = limitsOf(system.endsWith(")") ? `modelled cycles, ${system.match(/[(]([^()]*)[)]$/)[1]}` : "TSC cycles");
  const name = { key: system, label: about.title, style: 0 };
  for (const operation of operations(chosen)) {
    const values = runs.map(({ run }) => mean(chosen.filter((e) => e.run === run && operationOf(e) === operation.key).map((e) => e.mean)));
    const base = D.baseline.find((b) => `${b.workload}|${b.mode}` === operation.key && b.cpus === Number(cpus) && b.metric === metric && historyOf(b) === system);
    const band = base && { low: base.low, high: base.high };
    chart(parent, { kind: "history", title: operation.title, counts: runs.map((_, index) => index), rows: [{ name, values }], digits: about.unit.startsWith("instr") || about.unit.startsWith("cycles") ? 0 : 2, band });
  }
}

function draw() {
  for (const { u } of charts.splice(0)) u.destroy();
  for (const id of ["slowdown", "lines", "ablations", "cost", "history"]) byId(id).replaceChildren();
  words();
  glance();
  slowdownSection();
  costSection();
  linesSection();
  ablationsSection();
  historySection();
  publishedSection();
}

function controls() {
  fill(byId("machine"), machines, state.machine);
  byId("machine").addEventListener("change", (event) => { state.machine = event.target.value; draw(); });
  byId("machine-label").hidden = machines.length < 2;
  for (const name of names) {
    const box = el("input", { type: "checkbox", value: name.key });
    box.checked = !state.hidden.has(name.key);
    box.addEventListener("change", () => { state.hidden[box.checked ? "delete" : "add"](name.key); draw(); });
    byId("toggles").append(el("label", { style: `--c: var(--s${name.style})` }, box, el("span", { class: "swatch" }), name.label));
  }
  for (const radio of document.querySelectorAll("input[name=scale]")) radio.addEventListener("change", () => { state.log = radio.value === "log" && radio.checked; draw(); });
}

// What a chart cannot say, beside it.
const NO_DEFENCES = "No defences against side channels on either system.";
const limitsOf = (machine) => machine.startsWith("modelled")
  ? `Modelled, not timed (${machine}). Not in it: page walks and TLB misses, pushes of interrupt frames, the capacity of caches. ${NO_DEFENCES}`
  : `Timed by the guest (${machine}). ${NO_DEFENCES}`;

function words() {
  for (const note of document.querySelectorAll("[data-limits]")) note.textContent = limitsOf(state.machine);
}

function about() {
  byId("title").textContent = [...new Set(D.experiments.map((e) => `${e.title}: ${e.question}`))].join(" ");
  byId("made").textContent = `${D.records.length} records of ${by(D.records, (r) => r.run).size} runs; written by cargo xtask report on ${D.made}.`;
  byId("bad").textContent = D.bad.length ? `Left out: ${D.bad.join("; ")}` : "";
}

about();
controls();
historyControls();
whySection();
draw();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
let width = innerWidth;
addEventListener("resize", () => {
  if (innerWidth === width) return;
  width = innerWidth;
  for (const { u, place } of charts) u.setSize({ width: place.clientWidth, height: HEIGHT });
});
// For tests, and for whoever wants the figures at the console.
window.dashboard = { data: D, charts, state, names };
