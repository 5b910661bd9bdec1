// What is behind a cell: its prompts, and what the model says of one of them.
function openCell(cell, focus = true) {
  state.cell = cell;
  state.all = false;
  drawCell();
  drawTable();
  if (state.prompt !== null) drawPrompt();
  markOpen();
  if (focus) $("cell-title").focus();
}

function drawCell() {
  const { cell } = state, metric = metricOf();
  const row = run.rows[run.cells.row[cell]];
  $("cell").hidden = false;
  $("cell-title").textContent = placeOf(cell);
  const edited = run.cells.layers[cell];
  $("cell-says").textContent = [
    `edited layers: ${edited}`, row.kind, row.source, ...saysOf(metric, cell).slice(1),
  ].filter(Boolean).join(" · ");
  const list = $("cell-prompts");
  if (!metric.values) {
    list.replaceChildren(make("li", {}, "Numbers of single prompts are left out of this page for " +
      `${metric.name}, to keep it small; they are in the run folder.`));
    $("cell-all").hidden = true;
    return;
  }
  const found = run.prompts.map((one, i) => [i, valueAt(metric, i, cell)])
    .filter(([i]) => matches(run.prompts[i]));
  found.sort((a, b) => order(b[1], a[1]));
  const most = Math.max(...found.map(([, v]) => (Number.isFinite(v) ? Math.abs(v) : 0)), 1e-300);
  const shown = state.all ? found : found.slice(0, 30);
  list.replaceChildren(...shown.map(([i, value]) => {
    const prompt = run.prompts[i];
    const bar = make("span", { class: "bar", "aria-hidden": "true" });
    bar.style.width = `${Number.isFinite(value) ? 100 * Math.abs(value) / most : 0}%`;
    return make("li", {}, make("button", {
      type: "button", class: "prompt", "data-prompt": i, "aria-pressed": String(i === state.prompt),
      onclick: () => openPrompt(i),
    }, make("span", { class: "value" }, Number.isNaN(value) ? "NA" : said(value)), bar,
      make("bdi", { class: "text" }, prompt.text),
      Number.isNaN(value) ? make("small", {}, reasonOf(i, cell)) : null));
  }));
  $("cell-count").textContent = `${found.length} prompts, largest first`;
  $("cell-all").hidden = shown.length === found.length;
  $("cell-all").textContent = `Show all ${found.length}`;
}

function openPrompt(index, focus = true) {
  state.prompt = index;
  if (state.cell === null) state.cell = visibleCells()[0];
  drawCell();
  drawPrompt();
  markOpen();
  if (focus) {
    $("prompt-title").focus({ preventScroll: true });
    $("prompt").scrollIntoView({ block: "nearest" });
  }
}

function drawPrompt() {
  const prompt = run.prompts[state.prompt], { cell } = state;
  $("prompt").hidden = false;
  $("prompt-title").replaceChildren(make("bdi", {}, prompt.text));
  const subject = new Set(prompt.subject_tokens);
  $("prompt-tokens").replaceChildren(...(prompt.tokens || []).map((text, i) => {
    const token = tokenOf(text, subject.has(i) ? "subject" : "");
    if (subject.has(i)) token.title = "subject";
    return token;
  }));
  const facts = [["id", prompt.id], ["subject", prompt.subject], ["relation", prompt.relation],
    ["group", prompt.group], ["answers", (prompt.answers || []).join(", ")], ["swapped for", prompt.swap],
    ["rank of the answer, clean", prompt.rank_answer_clean]];
  $("prompt-facts").replaceChildren(...facts.filter(([, v]) => v !== null && v !== "" && v !== undefined)
    .flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, make("bdi", {}, String(value)))]));
  $("prompt-numbers").replaceChildren(...run.metrics.filter((m) => m.values).flatMap((m) => {
    const value = valueAt(m, state.prompt, cell);
    return Number.isNaN(value) ? [] : [make("dt", {}, m.name), make("dd", {}, said(value))];
  }));
  $("edited-title").replaceChildren(`Edited: ${placeOf(cell)}`);
  drawTokens(prompt, cell);
  for (const [id, step] of [["layer-down", -1], ["layer-up", 1]]) {
    $(id).disabled = beside(step) === undefined;
  }
}

function drawTokens(prompt, cell) {
  const clean = prompt.clean[run.cells.token[cell]] || [];
  const edited = topsAt(state.prompt, cell);
  const most = Math.max(...[...clean, ...edited].map(([, p]) => p), 1e-9);
  const cut = clean.slice(0, Math.max(edited.length, run.tops ? run.tops.depth : 0));
  const before = new Map(clean.map(([text], i) => [text, i]));
  fill($("clean-tokens"), cut, most, () => "");
  fill($("edited-tokens"), edited, most, (text, i) => {
    if (!before.has(text)) return "new";
    const moved = before.get(text) - i;
    return moved ? `${moved > 0 ? "▲" : "▼"}${Math.abs(moved)}` : "";
  });
  $("tokens-note").textContent = edited.length ? tokensNote() : reasonOf(state.prompt, cell) || tokensNote();
}

function tokensNote() {
  if (!run.tops) return "This run keeps no tokens (sweep with --top 10).";
  if (!run.tops.depth) return "Tokens are left out of this page to keep it small; they are in the run folder.";
  const some = run.tops.depth < run.tops.kept
    ? `${run.tops.depth} of the ${run.tops.kept} tokens that the run keeps are in this page. ` : "";
  return `${some}“new” is not among the clean run's, an arrow is the change of rank.`;
}

function fill(list, tokens, most, mark) {
  list.replaceChildren(...tokens.map(([text, p], i) => {
    const bar = make("span", { class: "bar", "aria-hidden": "true" });
    bar.style.width = `${100 * p / most}%`;
    return make("li", {}, tokenOf(text), make("span", { class: "track" }, bar),
      make("span", { class: "value" }, percent(p)), make("small", {}, mark(text, i)));
  }));
}

function topsAt(prompt, cell) {
  if (!run.tops || !run.tops.depth) return [];
  const { depth, texts } = run.tops, found = [];
  for (let i = 0; i < depth; i++) {
    const at = (prompt * run.cells.row.length + cell) * depth + i;
    if (shares[at]) found.push([texts[ids[at]], (shares[at] / 255) ** 3]);
  }
  return found;
}

// the cell of the same row and token, so many layers further on in the run's order
function beside(step) {
  const { row, layer, token } = run.cells, { cell } = state;
  const wanted = layer[cell] + step;
  const found = row.findIndex((r, i) => r === row[cell] && token[i] === token[cell] && layer[i] === wanted);
  return found < 0 ? undefined : found;
}
