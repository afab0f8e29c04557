// The uploaded photo with the faces found in it. `props.value` is {id, image, alt, width, height, faces: [{box, notice}], face}
// (`face`: which of them is chosen);
// what is chosen of it travels in a widget of its own (choice.js), so that the picture is never sent back.
const make = Studio.make;
const root = element.querySelector(".panel");
const image = make("img", { alt: "", draggable: "false", hidden: true });
const layer = make("div", { class: "photo-layer" });
const box = make("div", { class: "photo-box" }, image, layer);
const ranges = [["left", "From the left"], ["top", "From the top"], ["side", "Size"], ["turn", "Turned"]].map(([name, label]) => {
  const scale = name === "turn" ? { min: -180, max: 180, step: 1 } : { min: 0, max: 1, step: 0.005 };
  const input = make("input", { type: "range", ...scale, "data-name": name, oninput: () => byHand() });
  return make("label", { class: "photo-range" }, label, input);
});
const said = make("p", { class: "studio-help photo-said", "aria-live": "polite" });
const turn = make("button", { type: "button", class: "studio-small", onclick: () => trigger("turn") }, "↺ Turn the photo");
const hand = make("input", { type: "checkbox", onchange: () => { manual = hand.checked; choose(); } });
const tools = make("div", { class: "photo-tools" }, make("label", { class: "studio-check" }, hand, "Choose the square by hand"), turn);
const handBox = make("div", { class: "photo-hand" }, said, tools, make("div", { class: "photo-ranges", hidden: true }, ...ranges));
root.append(box, handBox);
let manual = false;
let face = 0;
let crop = { left: 0.1, top: 0.1, side: 0.8, turn: 0 };

function square() {
  const { width, height } = props.value;
  const side = Math.max(16, crop.side * Math.min(width, height));
  return [crop.left * (width - side), crop.top * (height - side), side, crop.turn];
}

function words(faces) {
  const many = faces.length > 1 ? `${faces.length} faces were found; the first are the best to edit.` : "";
  return [many, manual ? "" : faces[face]?.notice].filter(Boolean).join(" ");
}

function choose() {
  const photo = props.value;
  const there = Boolean(photo?.image);
  box.hidden = handBox.hidden = !there;
  image.hidden = !there;
  layer.replaceChildren();
  if (!there) return;
  if (image.getAttribute("src") !== photo.image) image.src = photo.image;
  image.alt = photo.alt;
  const percent = (value, whole) => `${(100 * value) / whole}%`;
  const place = (node, [left, top, right, bottom]) => {
    node.style.left = percent(left, photo.width);
    node.style.top = percent(top, photo.height);
    node.style.width = percent(right - left, photo.width);
    node.style.height = percent(bottom - top, photo.height);
    layer.append(node);
  };
  handBox.querySelector(".photo-ranges").hidden = !manual;
  hand.checked = manual;
  if (manual) {
    const [left, top, side, degrees] = square();
    place(make("span", { class: "photo-square", style: `transform: rotate(${degrees}deg)` }), [left, top, left + side, top + side]);
  } else {
    photo.faces.forEach((found, index) => place(make("button", {
      type: "button", class: "photo-face", "aria-pressed": String(index === face), "aria-label": `Face ${index + 1} of ${photo.faces.length}`,
      onclick: () => { face = index; choose(); },
    }, make("span", {}, String(index + 1))), found.box));
  }
  said.textContent = words(photo.faces);
  said.hidden = !said.textContent;
  Studio.choose("photo", { photo: photo.id, face, crop: manual ? square() : null });
}

function byHand() {
  for (const label of ranges) {
    const input = label.querySelector("input");
    crop[input.dataset.name] = Number(input.value);
  }
  choose();
}

box.addEventListener("pointerdown", (event) => {
  if (!manual) return;
  event.preventDefault();
  const area = box.getBoundingClientRect();
  const move = (now) => {
    const { width, height } = props.value;
    const side = Math.max(16, crop.side * Math.min(width, height));
    const put = (value, whole) => Math.min(1, Math.max(0, (value * whole - side / 2) / Math.max(1, whole - side)));
    crop.left = put((now.clientX - area.left) / area.width, width);
    crop.top = put((now.clientY - area.top) / area.height, height);
    for (const label of ranges) label.querySelector("input").value = crop[label.querySelector("input").dataset.name];
    choose();
  };
  move(event);
  const stop = () => {
    removeEventListener("pointermove", move);
    removeEventListener("pointerup", stop);
  };
  addEventListener("pointermove", move);
  addEventListener("pointerup", stop);
});

function load() {
  face = props.value?.face ?? 0;
  crop = { left: 0.5, top: 0.3, side: 0.9, turn: 0 };
  for (const label of ranges) label.querySelector("input").value = crop[label.querySelector("input").dataset.name];
  manual = Boolean(props.value?.image) && props.value.faces.length === 0;
  choose();
}
watch("value", load);
load();
// A page that was loaded again finds its photo, and one that opened a project that of the project.
let asked = 0;
const look = (face) => {
  const wanted = face?.n > 0 ? face.photo : 0;
  if (!(wanted > Math.max(asked, props.value?.id ?? 0))) return;
  asked = wanted;
  // What an upload shows comes with the face, perhaps after it.
  setTimeout(() => { if (wanted > (props.value?.id ?? 0)) trigger("again"); }, 50);
};
Studio.on("face", element, look);
look(Studio.face);

// Gradio lets those files pass which the browser takes for pictures by their names: Windows does not know HEIC, and no
// browser every format that can be read here. The server looks at what is in a file, so here each counts as a picture.
if (!Studio.takesAnyFile) {
  Studio.takesAnyFile = true;
  const known = (files) => [...files].every((file) => file.type.startsWith("image/"));
  const asPictures = (files) => {
    const bag = new DataTransfer();
    for (const file of files) bag.items.add(known([file]) ? file : new File([file], file.name, { type: "image/jpeg" }));
    return bag;
  };
  addEventListener("click", (event) => {
    for (const input of event.target.closest?.("#photo-drop")?.querySelectorAll("input[type=file]") ?? [])
      input.accept = "image/*,.heic,.heif,.avif,.jp2,.tif,.tiff";
  }, true);
  addEventListener("change", ({ target }) => {
    if (target.matches?.("#photo-drop input[type=file]") && !known(target.files)) target.files = asPictures(target.files).files;
  }, true);
  addEventListener("drop", (event) => {
    const files = event.dataTransfer?.files ?? [];
    if (!event.target.closest?.("#photo-drop") || known(files)) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    event.target.dispatchEvent(new DragEvent("drop", { bubbles: true, cancelable: true, dataTransfer: asPictures(files) }));
  }, true);
}
