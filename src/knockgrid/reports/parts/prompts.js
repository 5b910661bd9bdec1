// The table of prompts: sorted by any column, filtered by text and group.
const COLUMNS = [
  ["text", "prompt", (p) => p.text],
  ["relation", "relation", (p) => p.relation],
  ["group", "group", (p) => p.group],
  ["answer", "answer", (p) => (p.answers || [])[0]],
  ["says", "clean run says", (p) => (p.clean[0] ? visible(run.words.texts[p.clean[0][0][0]]) : (p.generated || [])[0])],
  ["rank", "rank of answer", (p) => p.rank_answer_clean],
  ["value", "value", (p, i) => (state.cell === null ? NaN : valueAt(metricOf(), i, state.cell))],
];

// what is missing last in both directions
function order(a, b, down) {
  const gone = (v) => v === null || v === undefined || Number.isNaN(v);
  if (gone(a) || gone(b)) return Number(gone(a)) - Number(gone(b));
  const numbers = typeof a === "number" && typeof b === "number";
  const apart = numbers ? Number(a > b) - Number(a < b) : String(a).localeCompare(String(b));
  return down ? -apart : apart;
}

function matches(prompt) {
  const wanted = $("filter").value.trim().toLowerCase();
  const text = [prompt.id, prompt.text, prompt.subject, prompt.relation, prompt.group,
    ...(prompt.answers || [])].join("\n").toLowerCase();
  return (!wanted || text.includes(wanted)) &&
    (!$("group").value || `group:${prompt.group}` === $("group").value) &&
    (!$("relation").value || `relation:${prompt.relation}` === $("relation").value);
}

function usedColumns() {
  return COLUMNS.filter(([name, , of]) => name === "value" || run.prompts.some((p, i) => {
    const v = of(p, i);
    return v !== null && v !== undefined && v !== "";
  }));
}

function drawTable() {
  const columns = usedColumns(), { by, down } = state.sort;
  const head = columns.map(([name, title]) => {
    const sorted = by === name ? (down ? "descending" : "ascending") : "none";
    const words = name === "value" ? valueTitle() : title;
    const arrow = make("span", { "aria-hidden": "true" }, { none: "", ascending: " ▲", descending: " ▼" }[sorted]);
    return make("th", { scope: "col", "aria-sort": sorted },
      make("button", { type: "button", "data-sort": name, onclick: () => sortBy(name) }, words, arrow));
  });
  const of = (COLUMNS.find(([name]) => name === by) || COLUMNS[0])[2];
  const found = run.prompts.map((p, i) => [i, of(p, i)]).filter(([i]) => matches(run.prompts[i]));
  if (by) found.sort((a, b) => order(a[1], b[1], down));
  const shown = state.allRows ? found : found.slice(0, 100);
  $("prompt-table").replaceChildren(
    make("thead", {}, make("tr", {}, ...head)),
    make("tbody", {}, ...shown.map(([i]) => make("tr", { "data-prompt": i }, ...columns.map(([name, , get]) => {
      const value = get(run.prompts[i], i);
      const words = typeof value === "number" ? (Number.isNaN(value) ? "–" : said(value)) : value || "–";
      if (name !== "text") return make("td", {}, make("bdi", {}, words));
      return make("td", {}, make("button", {
        type: "button", class: "link", onclick: () => openPrompt(i),
      }, make("bdi", {}, words)));
    })))));
  $("prompt-count").textContent = `${found.length} of ${counted(run.prompts.length, "prompt")}`;
  $("prompt-all").hidden = shown.length === found.length;
  $("prompt-all").textContent = `Show all ${found.length}`;
}

function valueTitle() {
  if (state.cell === null) return "value in a cell";
  return `${metricOf().name}: ${placeOf(state.cell)}`;
}

function sortBy(name) {
  state.sort = { by: name, down: state.sort.by === name ? !state.sort.down : name === "value" };
  drawTable();
  document.querySelector(`[data-sort="${name}"]`).focus();
}

// the run, its numbers as they are asked for, and what is open
let run, tops, shares, wordIds, reasons, writtenCodes;
const state = { cell: null, prompt: null, all: false, allRows: false, sort: { by: null, down: false } };
const unpacked = new Map();

const metricOf = () => run.metrics.find((one) => one.name === $("metric").value);

function valueAt(metric, prompt, cell) {
  if (!metric.values) return NaN;
  if (!unpacked.has(metric.name)) unpacked.set(metric.name, numbersOf(metric.values));
  return unpacked.get(metric.name)[prompt * run.cells.row.length + cell];
}

function placeOf(cell) {
  const token = run.tokens.length > 1 ? `, token ${run.cells.token[cell]}` : "";
  return `${run.rows[run.cells.row[cell]].label}, layer ${run.layers[run.cells.layer[cell]]}${token}`;
}

function reasonOf(prompt, cell) {
  const code = reasons[prompt * run.cells.row.length + cell];
  const words = code === 255 ? "this prompt has no such cell" : run.statuses.names[code];
  return words === "ok" ? "" : words;
}

// what a free run wrote under a row's edit at a layer; it stands at the first of its tokens
function writtenIn(prompt, cell) {
  if (!run.written || cell === null) return "";
  const { row, layer } = run.cells;
  for (let i = 0; i < row.length; i++) {
    const code = row[i] === row[cell] && layer[i] === layer[cell] ? writtenCodes[prompt * row.length + i] : 0;
    if (code) return run.written.texts[code - 1];
  }
  return "";
}

const LABELS = ["head", "module", "position"], SELECTORS = ["token", "role", ...LABELS];

function chosen() {
  return Object.fromEntries(SELECTORS.map((name) => [name, $(name).value]));
}

function visibleCells(wanted = chosen()) {
  return run.cells.row.map((_, i) => i).filter((i) => {
    const row = run.rows[run.cells.row[i]];
    return run.cells.token[i] === Number(wanted.token) &&
      (wanted.role === "all" || (row.role || "treatment") === wanted.role) &&
      LABELS.every((name) => !wanted[name] || wanted[name] === `=${row[name]}`);
  });
}

// what would leave no cell cannot be chosen
function offer() {
  const wanted = chosen();
  for (const name of SELECTORS) {
    for (const option of $(name).options) {
      option.disabled = !visibleCells({ ...wanted, [name]: option.value }).length;
    }
  }
}

function noSuchCell() {
  const wanted = chosen();
  const words = LABELS.filter((name) => wanted[name])
    .map((name) => `${name} ${wanted[name].slice(1).replace("null", "none")}`);
  return `No such cell: no row has ${words.join(" and ") || "what is chosen"}.`;
}

function saysOf(metric, cell) {
  const row = run.rows[run.cells.row[cell]], { layer, token, row: rows } = run.cells;
  const says = [`${placeOf(cell)}: ${said(metric.mean[cell], 4)}`,
    `${labelled(metric)}, mean of ${counted(metric.n[cell], "prompt")}`];
  if (metric.low && metric.low[cell] !== null) {
    says.push(`95 % interval ${said(metric.low[cell])} to ${said(metric.high[cell])} (${metric.clusters})`);
  }
  rows.forEach((r, i) => {
    const other = run.rows[r];
    if (other.of === row.intervention && layer[i] === layer[cell] && token[i] === token[cell]) {
      says.push(`${other.role} ${other.intervention}: ${said(metric.mean[i])}`);
    }
  });
  if (metric.floor && metric.floor[cell] !== null) says.push(`noise floor ${said(metric.floor[cell])}`);
  return says;
}

function drawHeatmap() {
  const metric = metricOf(), cells = visibleCells();
  const rows = [...new Set(cells.map((i) => run.cells.row[i]))].sort((a, b) => a - b);
  const limits = limitsOf(cells.map((i) => metric.mean[i]), metric.signed);
  const colours = metric.signed ? run.diverging : run.colours;
  const lines = rows.map((r) => ({
    label: run.rows[r].label,
    title: [run.rows[r].intervention, run.rows[r].source].filter(Boolean).join(" · "),
    cells: run.layers.map((_, x) => {
      const cell = cells.find((i) => run.cells.row[i] === r && run.cells.layer[i] === x);
      if (cell === undefined) return null;
      const floor = metric.floor && metric.floor[cell];
      return {
        cell, value: metric.mean[cell], says: saysOf(metric, cell),
        faint: metric.mean[cell] !== null && floor !== null && Math.abs(metric.mean[cell]) <= floor,
      };
    }),
  }));
  heatmap($("grid"), { title: `${metric.label} by row and layer`, layers: run.layers, lines,
    colours, limits, open: openCell });
  if (!cells.length) $("grid").replaceChildren(make("p", {}, noSuchCell()));
  offer();
  $("grid").querySelectorAll("button").forEach((b) => {
    b.dataset.cell = lines[b.dataset.y].cells[b.dataset.x].cell;
  });
  scaleBar($("scale"), colours, limits, metric.label);
  $("scale").hidden = !cells.length;
  $("metric-note").textContent = [metric.note,
    metric.floor ? "dotted outline: not above the noise floor" : ""].filter(Boolean).join("; ");
  markOpen();
}

function markOpen() {
  $("grid").querySelectorAll("button").forEach((b) => {
    const open = Number(b.dataset.cell) === state.cell;
    b.classList.toggle("open", open);
    if (open) b.setAttribute("aria-current", "true");
    else b.removeAttribute("aria-current");
  });
}

function startRun(data) {
  run = data;
  reasons = bytesOf(run.statuses.data);
  if (run.written) writtenCodes = new Uint16Array(bytesOf(run.written.data).buffer);
  wordIds = new Uint32Array(bytesOf(run.words.ids).buffer);
  if (run.tops && run.tops.depth) {
    const bytes = bytesOf(run.tops.ids);
    tops = run.tops.wide ? new Uint32Array(bytes.buffer) : new Uint16Array(bytes.buffer);
    shares = bytesOf(run.tops.p);
  }
  const again = () => { drawHeatmap(); if (state.cell !== null) drawCell(); drawTable(); if (state.prompt !== null) drawPrompt(); };
  choose($("metric"), run.metrics.map((m) => [m.name, labelled(m)]), again);
  choose($("token"), run.tokens.map((t) => [t, t === 0 ? "the first after the prompt" : `number ${t}`]), () => {
    const { row, layer, token } = run.cells, { cell } = state, wanted = Number($("token").value);
    const same = row.findIndex((r, i) => r === row[cell] && layer[i] === layer[cell] && token[i] === wanted);
    if (same >= 0) state.cell = same;
    again();
  });
  $("token").closest("label").hidden = run.tokens.length < 2;
  for (const name of LABELS) {
    const values = [...new Set(run.rows.map((row) => row[name]))];
    choose($(name), [["", "all"], ...values.map((v) => [`=${v}`, v === null ? "none" : String(v)])], again);
    $(name).closest("label").hidden = values.length < 2;
  }
  const roles = [...new Set(run.rows.map((row) => row.role || "treatment"))];
  choose($("role"), [...roles.map((r) => [r, `${r}s`]), ["all", "all"]], again);
  $("role").closest("label").hidden = roles.length < 2;
  for (const name of ["group", "relation"]) {
    const values = [...new Set(run.prompts.map((p) => p[name]).filter((v) => v !== null))];
    choose($(name), [["", "all"], ...values.map((v) => [`${name}:${v}`, String(v)])], () => {
      drawTable();
      if (state.cell !== null) drawCell();
    });
    $(name).closest("label").hidden = values.length < 2;
  }
  $("filter").addEventListener("input", () => { drawTable(); if (state.cell !== null) drawCell(); });
  $("cell-all").addEventListener("click", () => { state.all = true; drawCell(); });
  $("prompt-all").addEventListener("click", () => { state.allRows = true; drawTable(); });
  for (const [id, step] of [["layer-down", -1], ["layer-up", 1]]) {
    $(id).addEventListener("click", () => { openCell(beside(step), false); });
  }
  drawHeatmap();
  drawTable();
}
