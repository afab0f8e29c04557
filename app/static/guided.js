// How a description is being followed: progress, losses, and the face as it would be, which the stage shows.
// `props.value` is what app/tabs/describe.py calls progress, or null.
const make = Studio.make;
const root = element.querySelector(".panel");
const WIDTH = 100;
const HEIGHT = 32;
const bar = make("div", { class: "progress-fill" });
const track = make("div", { class: "progress", role: "progressbar", "aria-label": "Description", "aria-valuemin": 0, "aria-valuemax": 100 }, bar);
const words = make("p", { class: "progress-words", role: "status" });
const scores = make("dl", { class: "scores" });
const svg = (tag, attributes) => {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
};
// The charts are there from the first moment, so that nothing moves when figures arrive.
const charts = props.losses.map(({ name, label, help }) => {
  const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" });
  const best = svg("line", { class: "curve-best", y1: 0, y2: HEIGHT });
  const line = svg("polyline", { class: "curve-line" });
  picture.append(best, line);
  const figures = make("span", { class: "curve-figures" });
  const box = make("figure", { class: `curve curve-${name}`, title: help },
    make("figcaption", {}, make("span", { class: "curve-name" }, label), figures), picture);
  return { name, label, picture, best, line, figures, box };
});
root.append(track, words, make("div", { class: "curves", role: "group", "aria-label": "Losses; lower is better" }, ...charts.map(({ box }) => box)), scores);

function draw({ name, label, picture, best, line, figures }, now) {
  const points = now.steps.map((step, index) => [step, now.losses[name]?.[index]]).filter(([, value]) => Number.isFinite(value));
  const values = points.map(([, value]) => value);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const x = (step) => (WIDTH * step) / Math.max(1, now.total);
  const y = (value) => (high > low ? 2 + ((HEIGHT - 4) * (high - value)) / (high - low) : HEIGHT / 2);
  line.setAttribute("points", points.map(([step, value]) => `${x(step).toFixed(2)},${y(value).toFixed(2)}`).join(" "));
  best.setAttribute("visibility", now.best && points.length ? "visible" : "hidden");
  for (const end of ["x1", "x2"]) best.setAttribute(end, x(now.best ?? 0));
  const [first, last] = [values[0], values[values.length - 1]].map((value) => value?.toPrecision(3));
  figures.textContent = values.length ? `${first} → ${last}` : "–";
  picture.setAttribute("aria-label", values.length ? `${label}: ${first} at first, ${last} now, lowest ${low.toPrecision(3)}` : `${label}: no figures`);
}

function showOnStage() {
  const now = props.value;
  if (!now || Studio.tab !== "describe") return;
  if (!now.image) Studio.dropLive(); // nothing better was found: the face is what it was
  else Studio.setLive({ face: now.face, revision: now.revision, seq: Studio.nextSeq(), image: now.image });
}

function render() {
  const now = props.value;
  root.hidden = !now;
  if (!now) {
    words.textContent = ""; // or "Done." would still be there when the next one begins
    if (Studio.tab === "describe") Studio.dropLive();
    return;
  }
  const percent = Math.round(100 * now.fraction);
  bar.style.width = `${percent}%`;
  track.setAttribute("aria-valuenow", percent);
  words.textContent = now.words;
  for (const chart of charts) draw(chart, now);
  scores.replaceChildren(...now.scores.flatMap(([name, value, help]) => [make("dt", { title: help }, name), make("dd", {}, value)]));
  showOnStage();
}
watch("value", render);
Studio.on("tab", element, showOnStage);
render();
// A page that was loaded again finds what it was following.
let looked = false;
const look = (face) => {
  if (looked || !(face?.n > 0)) return;
  looked = true;
  if (face.job === "describe" && !props.value) trigger("again");
};
Studio.on("face", element, look);
look(Studio.face);
