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
// The end of a row, at the most CPUs that were measured, and its worst point, by which it is judged: a line may rise and
// fall again.
function ends(row, counts) {
  const points = counts.map((cpus, index) => ({ cpus, slowdown: row.values[index], suspect: row.suspect[index] })).filter((point) => point.slowdown !== null);
  const end = points[points.length - 1];
  if (!end || end.cpus === 1) return null;
  return { end, worst: points.reduce((most, point) => (point.slowdown >= most.slowdown ? point : most)), suspect: points.some((point) => point.suspect) };
}

function glanceCell(found) {
  if (!found) return el("td", { class: "dim" }, "not measured");
  const { end, worst, suspect } = found;
  const [kind, word] = suspect ? ["doubt", "not to be trusted"] : verdict(worst.slowdown);
  const more = !suspect && verdict(end.slowdown)[0] !== kind ? `, worst ${fixed(worst.slowdown)}× at ${worst.cpus}` : "";
  return el("td", {}, el("span", { class: `verdict ${kind}` }, `${fixed(end.slowdown)}× at ${end.cpus}`, el("span", { class: "words" }, ` · ${word}${more}`)));
}

// A system in a sentence; rows that are not to be trusted say nothing of it.
function judged(name, rows) {
  const sound = rows.filter((row) => !row.suspect);
  const left = rows.length - sound.length ? ` (${rows.length - sound.length} of ${rows.length} rows are not to be trusted)` : "";
  if (!sound.length) return `${name.label}: nothing that can be trusted${left}`;
  const level = sound.filter((row) => row.worst.slowdown <= GOOD).length;
  const total = sound.length;
  const most = [...new Set(sound.map((row) => row.end.cpus))].sort((a, b) => a - b);
  const all = total > 1 ? `all ${total} rows` : "its one row";
  const what = level === total ? `is level in ${all}` : level ? `is level in ${level} of ${total} rows and slows down in ${total - level}` : `slows down in ${all}`;
  const { worst, operation } = sound.reduce((high, row) => (row.worst.slowdown > high.worst.slowdown ? row : high));
  return `${name.label} ${what}, to ${most.length > 1 ? `${most[0]} or ${most[most.length - 1]}` : most[0]} CPUs: ${level === total ? `never more than ${fixed(worst.slowdown)}×` : `at worst ${fixed(worst.slowdown)}× (${operation.workload}, ${modeInWords[operation.mode]}, ${worst.cpus} CPUs)`}${left}`;
}

function glance() {
  const systems = visible();
  const found = new Map(systems.map((name) => [name, []]));
  const body = shownOperations(here()).map((operation) => {
    const { counts, rows } = table(operation, systems, slowdownOf);
    const cells = systems.map((name) => {
      const row = rows.find((one) => one.name === name);
      const one = row ? ends(row, counts) : null;
      if (one) found.get(name).push({ ...one, operation });
      return glanceCell(one);
    });
    return el("tr", {}, el("th", { scope: "row" }, operation.title), ...cells);
  });
  const head = el("tr", {}, el("th", { scope: "col" }, "slowdown at the most CPUs"), ...systems.map((name) => el("th", { scope: "col" }, name.label)));
  byId("glance-table").replaceChildren(el("thead", {}, head), el("tbody", {}, ...body));
  const parts = [...found].filter(([, rows]) => rows.length).map(([name, rows]) => judged(name, rows));
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

// Other systems beside these: a line of one origin, a column of one kind.
function publishedSection() {
  byId("published-section").hidden = !D.published.length && !D.counted.length;
  const number = (value) => el("td", {}, value === null || value === undefined ? "–" : fixed(value, 0));
  const line = (kind, system, origin, figures, words) => el("tr", { class: kind }, el("th", { scope: "row", class: "words" }, system), el("td", { class: "words" }, el("span", { class: `origin ${kind}` }, origin)), ...figures.map(number), ...words.map((text) => el("td", { class: "words" }, text)));
  const others = (list, kind, origin, workload) => list.filter((one) => one.workload === workload).map((one) => line(kind, one.system, origin, [one.instructions, one.kernel_instructions, null, one.processor_cycles], [one.what, `${one.source}; ${one.caveat}`]));
  const own = (workload, mode) => names.filter((name) => name.variant === BASELINE).flatMap((name) => {
    const records = here().filter((r) => r.clock === "model" && r.cpus === 1 && r.workload === workload && r.mode === mode && nameOf(r) === name.key);
    const of = (value) => mean(records.map(value));
    const insns = of((r) => r.insns_user_per_op === null ? null : r.insns_user_per_op + r.insns_kernel_per_op);
    return records.length ? [line("here", name.label, "counted here", [insns, of((r) => r.insns_kernel_per_op), of((r) => r.cycles_per_op[SUMMARY.mean]), null], [`${workload}, ${modeInWords[mode]}`, `profile ${records[0].profile}`])] : [];
  });
  const columns = ["system", "origin", "instructions", "of them in the kernel", "modelled cycles", "cycles of a real processor", "what", "source and caveat"];
  const head = el("tr", {}, ...columns.map((text) => el("th", { scope: "col", class: "words" }, text)));
  const workloads = D.workloads.map((known) => known.name).filter((name) => [...D.published, ...D.counted].some((one) => one.workload === name));
  const bodies = workloads.map((workload) => {
    const mode = here().some((r) => r.workload === workload && r.mode === "mt") ? "mt" : "mp";
    return el("tbody", {}, el("tr", { class: "group" }, el("th", { scope: "rowgroup", colspan: columns.length }, workload)),
      ...own(workload, mode), ...others(D.counted, "counted", "counted by us", workload), ...others(D.published, "published", "published", workload));
  });
  byId("published").replaceChildren(el("thead", {}, head), ...bodies);
}
