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
  found.sort((a, b) => order(a[1], b[1], true));
  const most = Math.max(...found.map(([, v]) => (Number.isFinite(v) ? Math.abs(v) : 0)), 1e-300);
  const width = (v) => (Number.isNaN(v) ? 0 : Math.min(100, 100 * Math.abs(v) / most));
  const shown = state.all ? found : found.slice(0, 30);
  list.replaceChildren(...shown.map(([i, value]) => {
    const prompt = run.prompts[i];
    const bar = make("span", { class: "bar", "aria-hidden": "true" });
    bar.style.width = `${width(value)}%`;
    return make("li", {}, make("button", {
      type: "button", class: "prompt", "data-prompt": i, "aria-pressed": String(i === state.prompt),
      onclick: () => openPrompt(i),
    }, make("span", { class: "value" }, Number.isNaN(value) ? "NA" : said(value)), bar,
      make("bdi", { class: "text" }, prompt.text),
      Number.isNaN(value) ? make("small", {}, reasonOf(i, cell)) : null));
  }));
  $("cell-count").textContent = `${counted(found.length, "prompt")}, largest first`;
  $("cell-all").hidden = shown.length === found.length;
  $("cell-all").textContent = `Show all ${found.length}`;
}

function openPrompt(index, focus = true) {
  state.prompt = index;
  if (state.cell === null && visibleCells().length) state.cell = visibleCells()[0];
  if (state.cell !== null) drawCell();
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
  const text = writtenIn(state.prompt, cell);
  const wrote = text ? [make("dt", {}, "the edited model wrote"), make("dd", {}, make("bdi", {}, text))] : [];
  $("prompt-numbers").replaceChildren(...wrote, ...run.metrics.filter((m) => m.values && cell !== null).flatMap((m) => {
    const value = valueAt(m, state.prompt, cell);
    return Number.isNaN(value) ? [] : [make("dt", {}, m.name), make("dd", {}, said(value))];
  }));
  $("edited-title").replaceChildren(`Edited: ${cell === null ? "no such cell" : placeOf(cell)}`);
  drawTokens(prompt, cell);
  for (const [id, step] of [["layer-down", -1], ["layer-up", 1]]) {
    $(id).disabled = beside(step) === undefined;
  }
}

function drawTokens(prompt, cell) {
  const token = cell === null ? Number($("token").value) : run.cells.token[cell];
  const clean = (prompt.clean[token] || []).map(([word, code]) => [word, shareOf(code)]);
  const edited = cell === null ? [] : topsAt(state.prompt, cell);
  const most = Math.max(...[...clean, ...edited].map(([, p]) => p), 1e-9);
  const cut = clean.slice(0, Math.max(edited.length, run.tops ? run.tops.depth : 0));
  const before = new Map(clean.map(([word], i) => [word, i])); // not by text, which tokens may share
  fill($("clean-tokens"), cut, most, () => "");
  fill($("edited-tokens"), edited, most, (word, i) => {
    if (!before.has(word)) return "new";
    const moved = before.get(word) - i;
    return moved ? `${moved > 0 ? "▲" : "▼"}${Math.abs(moved)}` : "";
  });
  const none = cell === null || edited.length ? "" : reasonOf(state.prompt, cell);
  $("tokens-note").textContent = none || tokensNote();
}

function tokensNote() {
  if (!run.tops) return "This run keeps no tokens (sweep with --set top=10).";
  if (!run.tops.depth) return "Tokens are left out of this page to keep it small; they are in the run folder.";
  const some = run.tops.depth < run.tops.kept
    ? `${run.tops.depth} of the ${run.tops.kept} tokens that the run keeps are in this page. ` : "";
  return `${some}“new” is not among the clean run's, an arrow is the change of rank; probabilities are within 0.4 % of their value.`;
}

function fill(list, tokens, most, mark) {
  list.replaceChildren(...tokens.map(([word, p], i) => {
    const bar = make("span", { class: "bar", "aria-hidden": "true" });
    bar.style.width = `${100 * p / most}%`;
    const token = tokenOf(run.words.texts[word], "", `token ${wordIds[word]}`);
    return make("li", {}, token, make("span", { class: "track" }, bar),
      make("span", { class: "value" }, percent(p)), make("small", {}, mark(word, i)));
  }));
}

// the coding of payload.py
function shareOf(code) {
  return 2 ** ((1 - code) / 100);
}

// places in the list of words, with probabilities
function topsAt(prompt, cell) {
  if (!run.tops || !run.tops.depth) return [];
  const { depth } = run.tops, found = [], cells = run.cells.row.length, rank = run.prompts.length * cells;
  for (let i = 0; i < depth; i++) {
    const at = i * rank + prompt * cells + cell;
    const code = shares[at] | (shares[at + depth * rank] << 8);
    if (code) found.push([tops[(prompt * cells + cell) * depth + i], shareOf(code)]);
  }
  return found;
}

// the cell of the same row and token, so many layers further on in the run's order
function beside(step) {
  const { row, layer, token } = run.cells, { cell } = state;
  if (cell === null) return undefined;
  const wanted = layer[cell] + step;
  const found = row.findIndex((r, i) => r === row[cell] && token[i] === token[cell] && layer[i] === wanted);
  return found < 0 ? undefined : found;
}
