// A smaller face beside others in the Swap tab. `props.role` is "this" (the face on show) or "other" (`props.value`).
const make = Studio.make;
const other = props.role === "other";
const root = element.querySelector(".card");
const image = make("img", { alt: "", draggable: "false", hidden: true });
const overlay = make("canvas", { class: "stage-overlay", "aria-hidden": "true" });
const tip = make("span", { class: "stage-tip", "aria-hidden": "true", hidden: true });
const empty = make("span", { class: "studio-empty" }, other ? "No other face yet" : "");
const figure = make("div", { class: "stage-figure" }, image, overlay, tip, empty);
const title = make("figcaption", { class: "card-title" });
root.append(make("figure", {}, title, figure));
let map = null;
let hovered = null;
let chosen = new Set();

function face() {
  return other ? props.value : Studio.face;
}

function paintOverlay() {
  Studio.paintMap(overlay, map, (id) => (id === hovered ? [255, 255, 255, 90] : null));
  if (!map || !chosen.size) return;
  const out = Studio.spread(map, (id) => id !== hovered && !chosen.has(props.parts[id]?.name));
  const context = overlay.getContext("2d");
  const picture = context.getImageData(0, 0, map.size, map.size);
  for (let i = 0; i < out.length; i++) if (map.ids[i] !== hovered) picture.data.set([15, 23, 42, 85 * Math.min(1, 2 * out[i])], 4 * i);
  context.putImageData(picture, 0, 0);
}

async function paint() {
  const now = face();
  title.textContent = other ? `The other face${now?.title ? `: ${now.title}` : ""}` : "This face";
  empty.hidden = Boolean(now?.image);
  image.hidden = !now?.image;
  map = null;
  if (now?.image) {
    image.src = now.image;
    image.alt = now.alt;
    const read = await Studio.readMap(now.map);
    if (now === face()) map = read;
  }
  paintOverlay();
}

Studio.pointAt(figure, tip, () => map, props.parts, (id) => {
  if (id === hovered) return;
  hovered = id;
  paintOverlay();
}, (part) => Studio.emit("toggle", part.name));
Studio.on("chosen", element, (names) => {
  chosen = new Set(names);
  paintOverlay();
});
if (other) {
  watch("value", () => {
    Studio.other = props.value;
    Studio.emit("other", props.value);
    paint();
  });
  Studio.other = props.value;
  Studio.emit("other", props.value);
} else Studio.on("face", element, paint);
paint();
