// What the page shows, put in order: machines, systems, operations, and the figures of each.
"use strict";
const D = JSON.parse(document.getElementById("data").textContent);
const BASELINE = "baseline";
const SUMMARY = { median: 2, mean: 3 };
const STYLES = 6;

const by = (list, key) => {
  const groups = new Map();
  for (const one of list) {
    const name = key(one);
    if (!groups.has(name)) groups.set(name, []);
    groups.get(name).push(one);
  }
  return groups;
};
const mean = (values) => {
  const known = values.filter((value) => value !== null && value !== undefined);
  return known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : null;
};
const machineOf = (r) => `${r.clock === "model" ? "modelled cycles" : "TSC cycles"}, ${r.accel}${r.profile ? `, ${r.profile}` : ""}`;
const nameOf = (r) => `${r.system}|${r.system_version || "?"}|${r.variant}`;
const operationOf = (r) => `${r.workload}|${r.mode}`;
const modeInWords = { mt: "one process", mp: "a process a CPU" };
const lines = (r) => r.transfers_user_per_op === null ? null : r.transfers_user_per_op + r.transfers_kernel_per_op + r.transfers_string_per_op;
const fixed = (value, digits = 2) => value === null || value === undefined ? "–" : value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });

// The systems: Stormcell first, the newest version first, ablations last, so that systems keep their colours.
function readNames() {
  const names = [...by(D.records, nameOf)].map(([key, records]) => {
    const [system, version, variant] = key.split("|");
    const ts = records.map((r) => r.ts).sort().pop();
    return { key, system, version, variant, ts };
  });
  names.sort((a, b) => (a.variant !== BASELINE) - (b.variant !== BASELINE) || b.system.localeCompare(a.system) || b.ts.localeCompare(a.ts) || a.variant.localeCompare(b.variant));
  const newest = new Map();
  names.forEach((name, index) => {
    name.style = index % STYLES;
    const same = names.filter((other) => other.system === name.system && other.version !== name.version);
    const version = name.system === "linux" ? ` ${name.version.match(/^[0-9.]*/)[0].replace(/\.$/, "")}` : same.length ? ` ${name.version}` : "";
    name.label = name.system[0].toUpperCase() + name.system.slice(1) + version + (name.variant === BASELINE ? "" : `, ${name.variant}`);
    // Other versions of Stormcell and ablations are there to be switched on.
    const line = `${name.system}|${name.variant}`;
    name.shown = name.variant === BASELINE && (name.system === "linux" || !newest.has(line));
    newest.set(line, name);
  });
  if (!names.some((name) => name.shown)) names.forEach((name) => { name.shown = true; });
  return names;
}

const names = readNames();
const machines = [...by(D.records, machineOf).keys()];
const state = { machine: machines[0], log: true, hidden: new Set(names.filter((name) => !name.shown).map((name) => name.key)) };

// Operations in the order of their numbers; checks of the instrument and of building blocks last.
const order = new Map(D.workloads.map((workload, index) => [workload.name, index]));
const isOperation = (workload) => D.workloads.some((known) => known.name === workload && known.operation);
function operations(records) {
  const keys = [...by(records, operationOf).keys()];
  const place = (key) => { const [workload, mode] = key.split("|"); return [order.get(workload) ?? 999, mode === "mt" ? 0 : 1]; };
  return keys.sort((a, b) => place(a)[0] - place(b)[0] || place(a)[1] - place(b)[1]).map((key) => {
    const [workload, mode] = key.split("|");
    return { key, workload, mode, title: `${workload} · ${modeInWords[mode]}` };
  });
}

const here = () => D.records.filter((r) => machineOf(r) === state.machine);
const visible = () => names.filter((name) => !state.hidden.has(name.key));

// The figures of an operation as uPlot wants them: CPU counts, then a row for each system.
function table(operation, systems, value) {
  const records = here().filter((r) => operationOf(r) === operation.key);
  const counts = [...new Set(records.map((r) => r.cpus))].sort((a, b) => a - b);
  const at = (name, cpus) => records.filter((r) => nameOf(r) === name.key && r.cpus === cpus);
  const rows = systems.map((name) => ({
    name,
    values: counts.map((cpus) => mean(at(name, cpus).map(value))),
    suspect: counts.map((cpus) => at(name, cpus).some((r) => r.suspect)),
  }));
  return { counts, rows: rows.filter((row) => row.values.some((v) => v !== null)) };
}
