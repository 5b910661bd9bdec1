// Two runs on one scale, and the difference of their means where rows and layers match.
function startRuns({ runs, refused }) {
  const [a, b] = runs;
  const shared = a.metrics.map((m) => m.name).filter((n) => b.metrics.some((m) => m.name === n));
  const tokens = [...new Set([...a.tokens, ...b.tokens])].sort((x, y) => x - y);
  const draw = () => {
    const name = $("metric").value, token = Number($("token").value);
    const metrics = runs.map((one) => one.metrics.find((m) => m.name === name));
    const of = (one) => one.cells.row.map((_, i) => i).filter((i) => one.cells.token[i] === token);
    const limits = limitsOf(runs.flatMap((one, k) => of(one).map((i) => metrics[k].mean[i])), metrics[0].signed);
    const colours = metrics[0].signed ? a.diverging : a.colours;
    runs.forEach((one, k) => {
      const lines = linesOf(one, of(one), (i) => says(one, metrics[k], i, metrics[k].mean[i]));
      heatmap($(`grid-${"ab"[k]}`), { title: `${one.name}: ${metrics[k].label}`, layers: one.layers, lines,
        colours, limits });
    });
    scaleBar($("scale"), colours, limits, metrics[0].label);
    drawDifference(metrics, of);
  };
  const drawDifference = (metrics, of) => {
    const keyOf = (one, i) => JSON.stringify([...["intervention", "head", "module", "position", "alpha"]
      .map((n) => one.rows[one.cells.row[i]][n]), one.layers[one.cells.layer[i]]]);
    const theirs = new Map(of(b).map((i) => [keyOf(b, i), i]));
    const apart = new Map();
    for (const i of of(a)) {
      const j = theirs.get(keyOf(a, i));
      if (j === undefined) continue;
      const [x, y] = [metrics[0].mean[i], metrics[1].mean[j]];
      if (typeof x === "number" && typeof y === "number") apart.set(i, y - x);
    }
    const box = $("grid-difference");
    if (refused || !apart.size) {
      box.replaceChildren(make("p", {}, refused || "No row and layer is in both runs."));
      $("scale-difference").replaceChildren();
      return;
    }
    const most = Math.max(...[...apart.values()].map(Math.abs)) || 1;
    const cells = of(a).filter((i) => apart.has(i));
    const lines = linesOf(a, cells, (i) => says(a, metrics[0], i, apart.get(i)));
    const kept = a.layers.map((_, x) => x).filter((x) => cells.some((i) => a.cells.layer[i] === x));
    lines.forEach((line) => { line.cells = kept.map((x) => line.cells[x]); });
    const layers = kept.map((x) => a.layers[x]);
    heatmap(box, { title: "B minus A", layers, lines, colours: a.diverging, limits: [-most, most] });
    scaleBar($("scale-difference"), a.diverging, [-most, most], "B − A");
  };
  const says = (one, metric, i, value) =>
    ({ value, says: [`${one.rows[one.cells.row[i]].label}, layer ${one.layers[one.cells.layer[i]]}: ${said(value, 4)}`,
      labelled(metric)] });
  const linesOf = (one, cells, get) => [...new Set(cells.map((i) => one.cells.row[i]))].sort((x, y) => x - y)
    .map((r) => ({
      label: one.rows[r].label, title: one.rows[r].intervention,
      cells: one.layers.map((_, x) => {
        const i = cells.find((c) => one.cells.row[c] === r && one.cells.layer[c] === x);
        return i === undefined ? null : { cell: i, ...get(i) };
      }),
    }));
  if (!shared.length) {
    $("metric").closest(".choices").hidden = true;
    $("grid-difference").replaceChildren(make("p", {}, refused));
    return;
  }
  choose($("metric"), shared.map((n) => [n, labelled(a.metrics.find((m) => m.name === n))]), draw);
  choose($("token"), tokens.map((t) => [t, String(t)]), draw);
  $("token").closest("label").hidden = tokens.length < 2;
  draw();
}
