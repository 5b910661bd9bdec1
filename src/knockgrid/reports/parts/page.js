// What every page has: colours of the user's choice, copying, and the start.
function copy(button) {
  const text = $(button.dataset.copy).textContent;
  const done = (worked) => {
    const before = button.dataset.label || (button.dataset.label = button.textContent);
    button.textContent = worked ? "Copied" : "Press Ctrl+C";
    setTimeout(() => { button.textContent = before; }, 2000);
  };
  const byHand = () => {
    const area = make("textarea", { "aria-label": "text to copy", class: "copying" });
    area.value = text;
    document.body.append(area);
    area.select();
    const worked = document.execCommand("copy");
    area.remove();
    button.focus();
    done(worked);
  };
  if (navigator.clipboard && window.isSecureContext) {
    navigator.clipboard.writeText(text).then(() => done(true), byHand);
  } else byHand();
}

document.querySelectorAll("[data-copy]").forEach((button) => {
  button.addEventListener("click", () => copy(button));
});

$("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark"
    : window.matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  $("theme").setAttribute("aria-pressed", String(!dark));
});
document.addEventListener("scroll", hideTip, { capture: true, passive: true });

const given = JSON.parse($("data").textContent);
if (given && given.runs) {
  if (given.runs.every(Boolean)) startRuns(given);
} else if (given) startRun(given);
