// The face on show. `props.value` is what app/desk.py calls a face; `props.parts` the parts and their colours.
const make = Studio.make;
const parts = props.parts;
const MODES = [
  ["face", "Face", "The face alone"],
  ["parts", "Parts", "The part each pixel belongs to (fine mask)"],
  ["compare", "Before / after", "Drag the line between the face before every edit and now"],
  ["change", "Change map", "How much each pixel changed: dark is untouched, bright is most"],
  ["whole", "Whole photo", "The whole photo with the edits of all its faces; the frame shows this face"],
  ["model", "Model’s view", "The model's own picture of this face, which only says what changes in the photo"],
];
const ICONS = {
  undo: "M9 4 4 9l5 5M4 9h10a5.5 5.5 0 0 1 0 11h-3",
  redo: "m15 4 5 5-5 5m5-5H10a5.5 5.5 0 0 0 0 11h3",
  reset: "M5 12a7 7 0 1 0 2-5L5 9m0-5v5h5",
  picture: "M12 4v11m0 0-4-4m4 4 4-4M5 20h14",
  project: "M4 7h6l2 2h8v10H4V7m0 0V5h6l2 2",
  recipe: "M8 4H6v16h12V8l-4-4H8m6 0v4h4M9 13h6m-6 3h4",
};

const PENDING = "A preview: it becomes part of the face only when it is applied.";

let mode = "face";
let over = null; // a picture another tab shows in place of the face
let map = null;
let hovered = null;
let flashed = null;
let flashTimer = 0;
let since = "last";

const icon = (name) => {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
};
const tool = (name, label, help, action) =>
  make("button", { type: "button", class: `studio-tool tool-${name}`, title: help, onclick: action }, icon(name), label);

// --- What there is

const modeButtons = MODES.map(([name, label, help]) =>
  make("button", { type: "button", title: help, "data-mode": name, "aria-pressed": "false", onclick: () => setMode(name) }, label),
);
const modes = make("div", { class: "studio-segments stage-modes", role: "group", "aria-label": "What is shown" }, ...modeButtons);
const image = make("img", { class: "stage-image", alt: "", draggable: "false" });
const before = make("img", { class: "stage-before", alt: "", draggable: "false", hidden: true });
const overlay = make("canvas", { class: "stage-overlay", "aria-hidden": "true" });
const line = make("div", { class: "stage-line", hidden: true, "aria-hidden": "true" });
const slider = make("input", {
  type: "range", min: 0, max: 100, value: 50, class: "stage-slider", hidden: true, "aria-label": "Before and after: position of the line",
});
const tip = make("span", { class: "stage-tip", "aria-hidden": "true", hidden: true });
const badge = make("span", { class: "stage-badge", "aria-hidden": "true", hidden: true }, "preview");
const sides = [["before", "Before"], ["now", "Now"]].map(([name, label]) =>
  make("span", { class: `stage-badge stage-side-${name}`, "aria-hidden": "true", hidden: true }, label),
);
const figure = make("div", { class: "stage-figure" }, image, before, overlay, line, ...sides, slider, tip, badge);
const sinceButtons = [["last", "Last edit"], ["all", "All edits"]].map(([name, label]) =>
  make("button", { type: "button", "aria-pressed": "false", "data-since": name, onclick: () => { since = name; paint(); } }, label),
);
const sinceBox = make("div", { class: "studio-segments stage-since", role: "group", "aria-label": "Changes since", hidden: true }, ...sinceButtons);
const title = make("strong", { class: "stage-title" });
const words = make("span", {});
const note = make("span", { class: "stage-note", hidden: true }, " The views above the picture are back in the other tabs.");
const caption = make("p", { class: "stage-caption", "aria-live": "polite" }, words, note);
const tools = {
  undo: tool("undo", "Undo", "Undo the last step (Ctrl+Z)", () => act("undo")),
  redo: tool("redo", "Redo", "Redo (Ctrl+Shift+Z)", () => act("redo")),
  reset: tool("reset", "Reset", "Take back every edit of this face; can be undone", () => act("reset")),
  picture: tool("picture", "Picture", "Save the picture, a photo at its full size; the recipe that replays the edit is inside", () => Studio.flush().then(() => trigger("picture"))),
  project: tool("project", "Project", "Save the photo and the recipe in one file (ZIP), to go on later", () => Studio.flush().then(() => trigger("project"))),
  recipe: tool("recipe", "Recipe", "Save only the recipe (JSON): the face and every edit as plain data", () => Studio.flush().then(() => trigger("recipe"))),
};
const miniImage = make("img", { alt: "" });
const miniWords = make("span", {});
const mini = make("button", {
  type: "button", class: "stage-mini", "aria-label": "Back to the face", onclick: () => figure.scrollIntoView({ block: "center" }),
}, miniImage, miniWords);
const root = element.querySelector(".stage");
root.append(
  modes,
  figure,
  make("div", { class: "stage-words" }, make("div", { class: "stage-head" }, title, sinceBox), caption),
  make("div", { class: "stage-tools", role: "group", "aria-label": "History and saving" },
    make("div", {}, tools.undo, tools.redo, tools.reset), make("div", {}, tools.picture, tools.project, tools.recipe)),
  mini,
);

// --- What happens

async function act(name) {
  await Studio.flush();
  if (tools[name].disabled) return;
  Studio.settle();
  // Named one by one, because the page listens for events by their quoted names.
  ({ undo: () => trigger("undo"), redo: () => trigger("redo"), reset: () => trigger("reset") })[name]();
}

function setMode(name) {
  mode = name;
  paint();
  fetchWhole();
}

// The whole photo is asked for when it is looked at, and anew when something changed.
let asked = null;
const fresh = (face) => Studio.wide && Studio.wide.face === face.face && Studio.wide.revision === face.revision;
function fetchWhole() {
  const face = Studio.face;
  if (mode !== "whole" || !face?.in_photo || fresh(face) || asked === face) return;
  asked = face;
  trigger("whole");
}

function paint() {
  const face = Studio.face;
  if (!face) return;
  figure.classList.toggle("stage-waiting", face.face === 0 && Boolean(Studio.returning));
  Studio.clearSplash?.();
  const live = Studio.live;
  if (!face.in_photo && ["whole", "model"].includes(mode)) mode = "face";
  const shown = over ? "over" : mode;
  let source = over ? over.image : live ? live.image : face.image;
  let alt = over ? over.alt : face.alt;
  if (shown === "change" && !live) {
    const change = since === "all" ? face.change_all : face.change;
    if (change) {
      source = change;
      alt = `Change map: ${since === "all" ? face.caption_all : face.caption}`;
    }
  }
  if (shown === "model" && !live) {
    source = face.model;
    alt = `What the model sees of ${face.alt}`;
  }
  const wide = shown === "whole" && !live && fresh(face);
  if (wide) {
    source = Studio.wide.image;
    alt = Studio.wide.alt;
  }
  figure.classList.toggle("stage-whole", Boolean(wide));
  if (image.getAttribute("src") !== source) image.src = source;
  if (miniImage.getAttribute("src") !== source) miniImage.src = source;
  image.alt = alt;
  const comparing = shown === "compare";
  if (comparing && before.getAttribute("src") !== face.before) before.src = face.before;
  for (const node of [before, line, slider, ...sides]) node.hidden = !comparing;
  before.style.clipPath = `inset(0 ${100 - slider.value}% 0 0)`;
  line.style.left = `${slider.value}%`;
  badge.hidden = !live || Boolean(over);
  sinceBox.hidden = shown !== "change";
  for (const button of sinceButtons) button.setAttribute("aria-pressed", String(button.dataset.since === since));
  for (const button of modeButtons) {
    button.setAttribute("aria-pressed", String(button.dataset.mode === mode));
    button.disabled = Boolean(over);
    button.hidden = !face.in_photo && ["whole", "model"].includes(button.dataset.mode);
    button.title = over ? "In the other tabs; here the composition is shown" : MODES.find(([name]) => name === button.dataset.mode)[2];
  }
  title.textContent = over ? over.title : face.title;
  // While a slider moves, the last words stay: they would only flicker.
  const pending = live && ["swap", "describe"].includes(Studio.tab);
  const said = over ? `${over.caption}.` : pending ? PENDING : shown === "change" && since === "all" ? face.caption_all : face.caption;
  if (words.textContent !== said) words.textContent = said;
  note.hidden = !over;
  miniWords.textContent = live ? "Preview" : face.title;
  tools.undo.disabled = !face.undo;
  tools.redo.disabled = !face.redo;
  tools.reset.disabled = face.edits === 0;
  tools.project.hidden = !face.in_photo;
  modes.classList.toggle("stage-modes-six", Boolean(face.in_photo));
  paintOverlay();
}

function paintOverlay() {
  const visible = map && !over && !Studio.live && !["change", "compare", "whole", "model"].includes(mode);
  const bright = hovered ?? flashed;
  overlay.hidden = !visible;
  if (!visible) return;
  Studio.paintMap(overlay, map, (id) => {
    const color = parts[id]?.color ?? [128, 128, 128];
    if (mode === "parts") return [...color, bright === null || bright === id ? 170 : 90];
    return bright === id ? [...color, 120] : null;
  });
}

const usable = () => (over || ["change", "compare", "whole"].includes(mode) ? null : map);
Studio.pointAt(figure, tip, usable, parts, (id, event) => {
  if (id !== null) {
    const area = figure.getBoundingClientRect();
    tip.style.left = `${Math.min(event.clientX - area.left + 12, area.width - tip.offsetWidth - 4)}px`;
    tip.style.top = `${Math.max(event.clientY - area.top - 30, 4)}px`;
  }
  if (id !== hovered) {
    hovered = id;
    paintOverlay();
  }
}, (part) => {
  if (["swap", "describe"].includes(Studio.tab)) return Studio.emit("toggle", part.name);
  if (Studio.tab !== "edit") Studio.goTo("edit");
  Studio.pick(part.name);
});
slider.addEventListener("input", paint);
// Tabs above which the face matters; in the others a copy of it would only be in the way.
const showMini = (away) => mini.classList.toggle("stage-mini-on", away && ["edit", "swap", "describe"].includes(Studio.tab));
let away = false;
new IntersectionObserver(([seen]) => showMini((away = seen.intersectionRatio < 0.35)), { threshold: [0.3, 0.35, 0.4] }).observe(figure);
Studio.on("tab", element, () => showMini(away));

document.addEventListener("keydown", (event) => {
  if (!element.isConnected || !(event.ctrlKey || event.metaKey) || event.altKey) return;
  if (event.target.matches?.("input:not([type=range], [type=radio], [type=checkbox]), textarea, [contenteditable]")) return;
  const key = event.key.toLowerCase();
  const name = key === "y" || (key === "z" && event.shiftKey) ? "redo" : key === "z" ? "undo" : null;
  if (!name) return;
  event.preventDefault();
  act(name);
});

Studio.on("wide", element, paint);
Studio.on("face", element, async (face) => {
  paint();
  fetchWhole();
  const read = await Studio.readMap(face.map);
  if (Studio.face === face) {
    map = read;
    Studio.map = read;
    paintOverlay();
    Studio.emit("map", read);
  }
});
Studio.on("live", element, paint);
Studio.on("show", element, (picture) => {
  over = picture;
  paint();
});
Studio.on("pick", element, (name) => {
  flashed = parts.findIndex((part) => part.name === name);
  clearTimeout(flashTimer);
  flashTimer = setTimeout(() => {
    flashed = null;
    paintOverlay();
  }, 900);
  paintOverlay();
});

watch("value", () => Studio.setFace(props.value));
Studio.setFace(props.value);
