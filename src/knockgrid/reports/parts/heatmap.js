// A heatmap as a grid of buttons: one stop in the tab order, arrows move, Enter opens.
function colourAt(colours, share) {
  return colours[Math.max(0, Math.min(colours.length - 1, Math.round(share * (colours.length - 1))))];
}

function inkOn(colour) {
  const [r, g, b] = [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16));
  return 0.299 * r + 0.587 * g + 0.114 * b > 140 ? "#111" : "#fff";
}

// `lines` are {label, row, cells: [{value, says, cell} or null]}
function heatmap(box, { title, layers, lines, colours, limits, open }) {
  const head = make("tr", { role: "row" }, make("th", { scope: "col", role: "columnheader" }, "layer"),
    ...layers.map((layer) => make("th", { scope: "col", role: "columnheader" }, String(layer))));
  const buttons = [];
  const body = lines.map((line, y) => make("tr", { role: "row" },
    make("th", { scope: "row", role: "rowheader", title: line.title }, make("bdi", {}, line.label)),
    ...line.cells.map((one, x) => {
      if (!one) return make("td", { role: "gridcell", class: "nothing" }, "");
      const number = Number(String(one.value === null ? NaN : one.value).replace("inf", "Infinity"));
      const share = (number - limits[0]) / (limits[1] - limits[0] || 1);
      const colour = Number.isNaN(number) ? null : colourAt(colours, share); // infinite: an end
      const button = make("button", {
        type: "button", tabindex: "-1", "aria-label": one.says.join("; "), "data-x": x, "data-y": y,
        class: "cell" + (colour ? "" : " na") + (one.faint ? " faint" : ""),
      }, short(one.value));
      if (colour) { button.style.background = colour; button.style.color = inkOn(colour); }
      for (const event of ["mouseenter", "focus"]) {
        button.addEventListener(event, () => showTip(button, one.says));
      }
      for (const event of ["mouseleave", "blur"]) button.addEventListener(event, hideTip);
      button.addEventListener("click", () => {
        stop(button);
        if (open) open(one.cell);
      });
      buttons.push(button);
      return make("td", { role: "gridcell" }, button);
    })));
  const stop = (button) => {
    for (const one of buttons) one.tabIndex = one === button ? 0 : -1;
  };
  const table = make("table", { class: "heatmap", role: "grid", "aria-label": title },
    make("thead", { role: "rowgroup" }, head), make("tbody", { role: "rowgroup" }, ...body));
  table.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    const from = event.target.closest("button");
    if (event.key === "Escape") hideTip();
    if (!from || (!step && !["Home", "End"].includes(event.key))) return;
    event.preventDefault();
    const x = Number(from.dataset.x), y = Number(from.dataset.y);
    const at = (i, j) => buttons.find((b) => Number(b.dataset.x) === i && Number(b.dataset.y) === j);
    let to = null;
    if (event.key === "Home") to = buttons.find((b) => Number(b.dataset.y) === y);
    else if (event.key === "End") to = buttons.filter((b) => Number(b.dataset.y) === y).pop();
    else {
      for (let i = x + step[0], j = y + step[1]; i >= 0 && j >= 0 && i < layers.length && j < lines.length;
        i += step[0], j += step[1]) {
        to = at(i, j);
        if (to) break;
      }
    }
    if (to) { stop(to); to.focus(); }
  });
  if (buttons.length) buttons[0].tabIndex = 0;
  box.replaceChildren(table);
}

function showTip(button, lines) {
  const tip = $("tip");
  tip.replaceChildren(...lines.map((line, i) => make(i ? "div" : "strong", {}, line)));
  tip.hidden = false;
  const place = button.getBoundingClientRect(), size = tip.getBoundingClientRect();
  const width = document.documentElement.clientWidth;
  const left = Math.max(8, Math.min(place.left, width - size.width - 8));
  const above = place.top - size.height - 8;
  tip.style.left = `${left}px`;
  tip.style.top = `${above > 4 ? above : place.bottom + 8}px`;
}

function hideTip() {
  $("tip").hidden = true;
}

function scaleBar(box, colours, limits, words) {
  const bar = make("span", { class: "ramp", "aria-hidden": "true" });
  bar.style.background = `linear-gradient(to right, ${colours.join(",")})`;
  box.replaceChildren(said(limits[0], 2), bar, said(limits[1], 2), make("span", { class: "unit" }, words));
}

// from 0, or the least value where some are negative; of signed measures as far below 0 as above
function limitsOf(values, signed) {
  const finite = values.map((v) => Number(String(v).replace("inf", "Infinity")))
    .filter((v, i) => values[i] !== null && Number.isFinite(v));
  const low = Math.min(0, ...finite), high = Math.max(...finite, low);
  const most = Math.max(-low, high) || 1;
  return signed ? [-most, most] : [low, high > low ? high : low + 1];
}
