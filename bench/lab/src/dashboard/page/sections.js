// The parts of the page.
const GOOD = 1.1;
const FAIR = 2;
const verdict = (slowdown) => (slowdown <= GOOD ? ["good", "level"] : slowdown <= FAIR ? ["fair", "rises"] : ["poor", "rises steeply"]);
const byId = (id) => document.getElementById(id);
const slowdownOf = (r) => r.slowdown;
const shownOperations = (records) => {
  const real = records.filter((r) => isOperation(r.workload));
  return operations(real.length ? real : records);
};
const atMost = (row, counts) => {
  let index = row.values.length - 1;
  while (index >= 0 && row.values[index] === null) index -= 1;
  return index < 0 ? null : { slowdown: row.values[index], cpus: counts[index] };
};

function glance() {
  const systems = visible();
  const worst = new Map();
  const body = [];
  for (const operation of shownOperations(here())) {
    const { counts, rows } = table(operation, systems, slowdownOf);
    const cells = systems.map((name) => {
      const row = rows.find((one) => one.name === name);
      const end = row && atMost(row, counts);
      if (!end || end.cpus === 1) return el("td", { class: "dim" }, "not measured");
      const sofar = worst.get(name) ?? { slowdown: 0, level: 0, total: 0 };
      const count = { level: sofar.level + (end.slowdown <= GOOD), total: sofar.total + 1 };
      worst.set(name, sofar.slowdown < end.slowdown ? { ...end, operation, ...count } : { ...sofar, ...count });
      const [kind, word] = verdict(end.slowdown);
      return el("td", {}, el("span", { class: `verdict ${kind}` }, `${fixed(end.slowdown)}× at ${end.cpus}`, el("span", { class: "words" }, ` · ${word}`)));
    });
    body.push(el("tr", {}, el("th", { scope: "row" }, operation.title), ...cells));
  }
  const head = el("tr", {}, el("th", { scope: "col" }, "slowdown at the most CPUs"), ...systems.map((name) => el("th", { scope: "col" }, name.label)));
  byId("glance-table").replaceChildren(el("thead", {}, head), el("tbody", {}, ...body));
  const parts = [...worst].map(([name, end]) => {
    const { level, total } = end;
    const judged = level === total ? `is level in ${total > 1 ? `all ${total} rows` : "it"}` : level ? `is level in ${level} of ${total} rows and slows down in ${total - level}` : `slows down in ${total > 1 ? `all ${total} rows` : "it"}`;
    return `${name.label} ${judged}: at worst ${fixed(end.slowdown)}× (${end.operation.workload}, ${modeInWords[end.operation.mode]}, ${end.cpus} CPUs)`;
  });
  byId("headline").textContent = parts.length ? `${parts.join(". ")}.` : "No point with more than one CPU.";
}

function slowdownSection() {
  const parent = byId("slowdown");
  for (const operation of shownOperations(here())) {
    const { counts, rows } = table(operation, visible(), slowdownOf);
    if (rows.length && counts.length > 1) chart(parent, { kind: "slowdown", title: operation.title, counts, rows, unit: "×", choose: chooser(operation) });
  }
}

function linesSection() {
  const parent = byId("lines");
  for (const operation of shownOperations(here())) {
    const { counts, rows } = table(operation, visible(), lines);
    if (rows.length && counts.length > 1) chart(parent, { kind: "lines", title: operation.title, counts, rows, choose: chooser(operation) });
  }
}

function ablationsSection() {
  const parent = byId("ablations");
  const variants = names.filter((name) => name.system === "stormcell" && name.variant !== BASELINE);
  byId("ablations-section").hidden = !variants.length;
  const versions = new Set(variants.map((name) => name.version));
  const side = names.filter((name) => name.system === "stormcell" && versions.has(name.version));
  const of = new Set(variants.map((name) => name.key));
  for (const operation of operations(here().filter((r) => of.has(nameOf(r))))) {
    const { counts, rows } = table(operation, side, slowdownOf);
    if (rows.length && counts.length > 1) chart(parent, { kind: "slowdown", title: `${operation.title}, ablations`, counts, rows, unit: "×", choose: chooser(operation) });
  }
}

// Bars of the cost at one CPU; all bars of an operation have the same scale.
function costSection() {
  const parent = byId("cost");
  const key = el("p", { class: "key dim" }, "Where:");
  for (const [kind, words] of [["user", "user"], ["server", "server"], ["kernel", "kernel"], ["rest", "cycles beyond one an instruction (crossings, switches, first touches)"]]) key.append(el("span", { class: kind }), words);
  const bars = el("div", { class: "bars" });
  for (const operation of shownOperations(here().filter((r) => r.cpus === 1))) {
    const rows = visible().map((name) => ({ name, records: here().filter((r) => r.cpus === 1 && operationOf(r) === operation.key && nameOf(r) === name.key) })).filter((row) => row.records.length);
    if (!rows.length) continue;
    const parts = rows.map(({ name, records }) => {
      const get = (field) => mean(records.map((r) => r[field])) ?? 0;
      const server = get("insns_server_per_op");
      const cycles = mean(records.map((r) => r.cycles_per_op[SUMMARY.mean])) ?? 0;
      return { name, user: get("insns_user_per_op") - server, server, kernel: get("insns_kernel_per_op"), cycles };
    });
    const most = Math.max(...parts.map((part) => part.cycles), 1);
    bars.append(el("div", { class: "op" }, operation.title));
    for (const part of parts) {
      const insns = part.user + part.server + part.kernel;
      costBar(bars, part.name, "instructions", most, { user: part.user, server: part.server, kernel: part.kernel }, insns, operation);
      costBar(bars, part.name, "cycles", most, { user: part.user, server: part.server, kernel: part.kernel, rest: Math.max(0, part.cycles - insns) }, part.cycles, operation);
    }
  }
  parent.append(key, bars);
}

function costBar(bars, name, kind, most, parts, total, operation) {
  const told = Object.entries(parts).map(([part, value]) => `${part} ${fixed(value, 0)}`).join(", ");
  const bar = el("div", { class: "bar", role: "img", style: `width: ${75 * total / most}%`, title: told, "aria-label": `${operation.title}, ${name.label}, ${kind}: ${told}` });
  for (const [part, value] of Object.entries(parts)) bar.append(el("span", { class: part, style: `width: ${100 * value / Math.max(total, 1e-9)}%` }));
  const value = el("span", { class: "value", "data-cost": `${operation.key}|${name.key}|${kind}`, "data-value": total }, fixed(total, 0));
  bars.append(el("div", { class: "name" }, kind === "instructions" ? name.label : ""), el("div", { class: "kind dim" }, kind), el("div", { class: "track" }, bar, value));
}

// Why.
const chooser = (operation) => (name, cpus) => {
  const key = `${name.key}|${operation.key}|${cpus}|${state.machine}`;
  if (showWhy(key)) byId("why-h").scrollIntoView({ behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
};
const whyKey = (w) => { const r = D.records.find((one) => one.run === w.run && one.system === w.system); return `${nameOf(w)}|${operationOf(w)}|${w.cpus}|${r && machineOf({ ...r, profile: w.profile })}`; };
const whys = by(D.whys, whyKey);

function whySection() {
  const select = byId("why-point");
  for (const key of whys.keys()) {
    const [system, version, variant, workload, mode, cpus, machine] = key.split("|");
    const name = names.find((one) => one.key === `${system}|${version}|${variant}`);
    const more = machines.length > 1 ? `, ${machine}` : "";
    if (name) select.append(el("option", { value: key }, `${workload} ${mode}, ${name.label}, ${cpus} CPUs${more}`));
  }
  select.addEventListener("change", () => showWhy(select.value));
  // The point with the largest slowdown is the one that wants an explanation.
  const worst = [...D.records].filter((r) => r.slowdown && isOperation(r.workload)).sort((a, b) => b.slowdown - a.slowdown).map((r) => `${nameOf(r)}|${operationOf(r)}|${r.cpus}|${machineOf(r)}`).find((key) => whys.has(key));
  if (!whys.size) byId("why").replaceChildren(el("p", { class: "dim" }, "These records came without explanations; cargo xtask bench writes them beside its records."));
  else showWhy(worst ?? whys.keys().next().value);
}

function showWhy(key) {
  if (!whys.has(key)) { byId("why").replaceChildren(el("p", { class: "dim" }, "This point came without an explanation.")); return true; }
  const why = whys.get(key)[0];
  byId("why-point").value = key;
  const name = names.find((one) => one.key === nameOf(why));
  const of = (title, head, rows, empty) => el("div", {}, el("h3", {}, title), rows.length ? el("div", { class: "scroll" }, el("table", {}, el("thead", {}, el("tr", {}, ...head.map((h, index) => el("th", { scope: "col", class: index === head.length - 1 ? "words" : "" }, h)))), el("tbody", {}, ...rows))) : el("p", { class: "dim" }, empty));
  const moved = why.lines.map((line) => el("tr", {}, el("td", {}, fixed(line.transfers)), el("td", {}, fixed(line.queueing, 0)), el("td", { class: "words" }, line.what, el("div", { class: "dim" }, `by ${line.by.map(([f, n]) => `${f} (${fixed(n)})`).join(", ")}`))));
  const run = why.functions.slice(0, 20).map(([f, n]) => el("tr", {}, el("td", {}, fixed(n, 1)), el("td", { class: "words" }, f)));
  byId("why").replaceChildren(
    el("p", {}, `${why.workload} ${why.mode}, ${name ? name.label : why.system}, ${why.cpus} CPUs. Everything is an operation; more by `, el("code", {}, `cargo xtask explain ${why.workload} --system ${why.system} --mode ${why.mode} --cpus ${why.cpus}`)),
    el("div", { class: "columns" },
      of("Lines that moved", ["moves", "queueing", "what it holds, and who moved it"], moved, "No line moved: the operation is local."),
      of("Where instructions ran", ["instructions", "function"], run, "Nothing is known.")));
  return true;
}

function publishedSection() {
  const rows = D.published;
  byId("published-section").hidden = !rows.length;
  const head = ["what", "system", "figure", "measured here at one CPU", "source", "caveat"];
  const body = rows.map((p) => {
    const near = names.filter((n) => n.system === "stormcell" && n.variant === BASELINE).map((n) => here().filter((r) => r.cpus === 1 && r.workload === p.workload && nameOf(r) === n.key)).find((list) => list.length) ?? [];
    const insns = mean(near.map((r) => r.insns_user_per_op + r.insns_kernel_per_op));
    const cycles = mean(near.map((r) => r.cycles_per_op[SUMMARY.mean]));
    const own = near.length ? `Stormcell ${p.workload}: ${fixed(p.unit === "instructions" ? insns : cycles, 0)} ${p.unit === "instructions" ? "instructions" : "modelled cycles"}` : "–";
    return el("tr", {}, ...[p.what, p.system].map((t) => el("td", { class: "words" }, t)), el("td", {}, `${fixed(p.value, 0)} ${p.unit}, published`), ...[own, p.source, p.caveat].map((t) => el("td", { class: "words" }, t)));
  });
  byId("published").replaceChildren(el("thead", {}, el("tr", {}, ...head.map((h) => el("th", { scope: "col", class: "words" }, h)))), el("tbody", {}, ...body));
}
