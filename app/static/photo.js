// The uploaded photo with the faces found in it. `props.value` is {id, image, alt, width, height, faces: [{box}]};
// what is chosen of it travels in a widget of its own (choice.js), so that the picture is never sent back.
const make = Studio.make;
const root = element.querySelector(".panel");
const image = make("img", { alt: "", draggable: "false", hidden: true });
const layer = make("div", { class: "photo-layer" });
const box = make("div", { class: "photo-box" }, image, layer);
const ranges = [["left", "From the left"], ["top", "From the top"], ["side", "Size"]].map(([name, label]) => {
  const input = make("input", { type: "range", min: 0, max: 1, step: 0.005, "data-name": name, oninput: () => byHand() });
  return make("label", { class: "photo-range" }, label, input);
});
const hand = make("input", { type: "checkbox", onchange: () => { manual = hand.checked; choose(); } });
const handBox = make("div", { class: "photo-hand" }, make("label", { class: "studio-check" }, hand, "Choose the square by hand"), make("div", { class: "photo-ranges", hidden: true }, ...ranges));
root.append(box, handBox);
let manual = false;
let face = 0;
let crop = { left: 0.1, top: 0.1, side: 0.8 };

function square() {
  const { width, height } = props.value;
  const side = Math.max(16, crop.side * Math.min(width, height));
  return [crop.left * (width - side), crop.top * (height - side), side];
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
    const [left, top, side] = square();
    place(make("span", { class: "photo-square" }), [left, top, left + side, top + side]);
  } else {
    photo.faces.forEach((found, index) => place(make("button", {
      type: "button", class: "photo-face", "aria-pressed": String(index === face), "aria-label": `Face ${index + 1} of ${photo.faces.length}`,
      onclick: () => { face = index; choose(); },
    }, make("span", {}, String(index + 1))), found.box));
  }
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
  face = 0;
  crop = { left: 0.5, top: 0.3, side: 0.9 };
  for (const label of ranges) label.querySelector("input").value = crop[label.querySelector("input").dataset.name];
  manual = Boolean(props.value?.image) && props.value.faces.length === 0;
  choose();
}
watch("value", load);
load();
