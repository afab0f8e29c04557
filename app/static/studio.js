// What the widgets of the page share: the face on show, the tab in front, and a few helpers. Loaded once, in the head.
(() => {
  if (window.Studio) return;
  const handlers = [];
  const KEPT = "memorygan-studio";
  let saying = 0;

  const Studio = {
    face: null, // the last committed face, as app/desk.py describes it
    live: null, // a preview that is not committed, or null
    tab: "face",
    part: null, // name of the part that is being edited
    seq: 0, // grows with every movement of a control that asks for a preview
    settled: 0, // previews up to this number belong to a finished gesture
    choices: {}, // what was chosen last, by topic

    /** Calls `handler` on every event `name` while `element` is on the page. */
    on(name, element, handler) {
      handlers.push({ name, element, handler });
    },

    emit(name, detail) {
      for (let i = handlers.length - 1; i >= 0; i--) if (!handlers[i].element.isConnected) handlers.splice(i, 1);
      for (const { name: wanted, handler } of [...handlers]) if (wanted === name) handler(detail);
    },

    /** Makes a choice known: to the widget that carries it to the server (choice.js), and to whoever listens. */
    choose(topic, value) {
      Studio.choices[topic] = value;
      Studio.emit(topic, value);
    },

    /** An element; properties that start with "on" are listeners, the others attributes. Text is never parsed. */
    make(tag, attributes = {}, ...children) {
      const node = document.createElement(tag);
      for (const [key, value] of Object.entries(attributes)) {
        if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
        else if (value === true) node.setAttribute(key, "");
        else if (value !== false && value !== null && value !== undefined) node.setAttribute(key, value);
      }
      node.append(...children.filter((child) => child !== null && child !== undefined));
      return node;
    },

    nextSeq() {
      return ++Studio.seq;
    },

    /** Called when a change is committed: previews still under way are of no more interest. */
    settle() {
      Studio.settled = Studio.seq;
    },

    setFace(face) {
      if (!face || !face.image) return;
      const now = Studio.face;
      // Overtaken by a later answer.
      if (now && (now.face === face.face ? face.revision < now.revision : face.n < now.n)) return;
      Studio.face = face;
      Studio.live = null;
      Studio.emit("face", face);
    },

    setLive(live) {
      const face = Studio.face;
      if (!live || !face || live.face !== face.face || live.revision < face.revision || live.seq <= Studio.settled) return;
      Studio.live = live;
      Studio.emit("live", live);
    },

    dropLive() {
      Studio.settle();
      Studio.live = null;
      Studio.emit("live", null);
    },

    /** Commits what a widget still holds back, and waits until the server has answered to it. */
    async flush() {
      const answers = [];
      Studio.emit("flush", answers);
      await Promise.all(answers);
    },

    setTab(tab) {
      if (Studio.tab === tab) return;
      Studio.tab = tab;
      Studio.dropLive();
      Studio.emit("show", null);
      Studio.emit("tab", tab);
    },

    /** Brings a tab to the front as a click on it would. */
    goTo(tab) {
      document.querySelector(`button[role="tab"][id$="tab-${tab}-button"]`)?.click();
    },

    pick(part) {
      Studio.part = part;
      Studio.emit("pick", part);
    },

    /** A row of choices with colour dots: radio buttons, or check boxes if `many`. */
    chips(parts, { many, name, onchange }) {
      return parts.map((part) => {
        const input = Studio.make("input", { type: many ? "checkbox" : "radio", name, value: part.name });
        input.addEventListener("change", () => onchange(part.name, input.checked));
        const dot = Studio.make("span", { class: "studio-dot", "aria-hidden": "true" });
        if (part.color) dot.style.backgroundColor = `rgb(${part.color.join(",")})`;
        else dot.classList.add("studio-dot-none");
        return Studio.make("label", { class: "studio-chip" }, input, dot, part.label);
      });
    },

    /** Reads a part map (grey value = part id) into {size, ids}. */
    async readMap(source) {
      const image = new Image();
      image.src = source;
      await image.decode();
      const canvas = Studio.make("canvas", { width: image.width, height: image.height });
      const context = canvas.getContext("2d", { willReadFrequently: true });
      context.drawImage(image, 0, 0);
      const pixels = context.getImageData(0, 0, image.width, image.height).data;
      const ids = new Uint8Array(image.width * image.height);
      for (let i = 0; i < ids.length; i++) ids[i] = pixels[4 * i];
      return { size: image.width, ids };
    },

    /** The part id under a pointer event on `box`, or null beside it. */
    idAt(map, box, event) {
      if (!map) return null;
      const area = box.getBoundingClientRect();
      const x = Math.floor(((event.clientX - area.left) / area.width) * map.size);
      const y = Math.floor(((event.clientY - area.top) / area.height) * map.size);
      return x < 0 || y < 0 || x >= map.size || y >= map.size ? null : map.ids[y * map.size + x];
    },

    /** Follows a pointer over `box`, where `map()` is the part map while parts can be pointed at: `tip` names the part there,
     *  `seen(id, event)` hears of every move (null beside the map), `taken(part)` of clicks. */
    pointAt(box, tip, map, parts, seen, taken) {
      const point = (event) => {
        const id = event && Studio.idAt(map(), box, event);
        tip.hidden = id === null;
        if (id !== null) tip.textContent = parts[id]?.label ?? "";
        seen(id, event);
      };
      box.addEventListener("pointermove", (event) => event.pointerType !== "touch" && point(event));
      box.addEventListener("pointerleave", () => point(null));
      box.addEventListener("click", (event) => {
        const id = Studio.idAt(map(), box, event);
        if (id !== null && parts[id]) taken(parts[id]);
      });
    },

    /** Paints parts over a canvas: `paint(id)` gives [red, green, blue, alpha] or null. */
    paintMap(canvas, map, paint) {
      const colors = [];
      canvas.width = canvas.height = map ? map.size : 1;
      if (!map) return;
      const context = canvas.getContext("2d");
      const picture = context.createImageData(map.size, map.size);
      for (let i = 0; i < map.ids.length; i++) {
        const id = map.ids[i];
        if (colors[id] === undefined) colors[id] = paint(id);
        if (colors[id]) picture.data.set(colors[id], 4 * i);
      }
      context.putImageData(picture, 0, 0);
    },

    /** Share of the 5 × 5 points around each that are `wanted(id)`: parts of a map with soft edges, without speckles. */
    spread({ size, ids }, wanted) {
      let from = Float32Array.from(ids, (id) => (wanted(id) ? 1 : 0));
      for (const stride of [1, size]) {
        const to = new Float32Array(from.length);
        for (let i = 0; i < to.length; i++) {
          const place = stride === 1 ? i % size : Math.floor(i / size);
          let sum = 0;
          for (let by = -2; by <= 2; by++) sum += from[i + stride * (Math.min(size - 1, Math.max(0, place + by)) - place)];
          to[i] = sum / 5;
        }
        from = to;
      }
      return from;
    },

    save(name, mime, base64) {
      const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
      const address = URL.createObjectURL(new Blob([bytes], { type: mime }));
      Studio.make("a", { href: address, download: name }).click();
      setTimeout(() => URL.revokeObjectURL(address), 10000);
    },

    /** Keeps a face, {recipe, label}, for this tab, and as the last one for a new tab. */
    keep(face) {
      if (!face?.recipe) return;
      for (const name of ["sessionStorage", "localStorage"]) {
        try {
          window[name].setItem(KEPT, JSON.stringify(face));
        } catch {
          try {
            window[name].removeItem(KEPT); // better none than an old one
          } catch {
            // Storage may be forbidden; a reload then begins anew.
          }
        }
      }
    },

    /** The face of this tab, else the last one of any; `tab` is a name that only this tab knows. */
    kept() {
      let found = {};
      try {
        found = JSON.parse(sessionStorage.getItem(KEPT) ?? localStorage.getItem(KEPT) ?? "{}");
      } catch {
        // Nothing that can be read is as good as nothing.
      }
      return { ...found, tab };
    },

    /** A sentence at the lower edge, for a while or, if `stay`, until there is another. */
    say(text, stay = false) {
      document.getElementById("studio-say")?.remove();
      clearTimeout(saying);
      document.body.append(Studio.make("div", { id: "studio-say", role: "status" }, text));
      if (!stay) saying = setTimeout(() => document.getElementById("studio-say")?.remove(), 8000);
    },

    toggleTheme() {
      wanted = document.body.classList.contains("dark") ? "light" : "dark";
      applyTheme();
      try {
        localStorage.setItem("memorygan-theme", wanted);
      } catch {
        // Storage may be forbidden; the choice then lasts until the page is closed.
      }
    },
  };

  let wanted = null; // "light" or "dark", if somebody chose; Gradio itself follows `?__theme=` and the system

  function applyTheme() {
    const dark = wanted === "dark";
    if (wanted && document.body.classList.contains("dark") !== dark) document.body.classList.toggle("dark", dark);
  }

  try {
    if (!new URLSearchParams(location.search).has("__theme")) wanted = localStorage.getItem("memorygan-theme");
  } catch {
    // No storage, no remembered theme.
  }
  const keepTheme = () => {
    applyTheme();
    // Gradio sets its own theme when it has started, and again when the system's changes.
    new MutationObserver(applyTheme).observe(document.body, { attributes: true, attributeFilter: ["class"] });
  };
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", keepTheme);
  else keepTheme();

  // A tab that is duplicated gets a copy of what the other one stored, its name too, while that one is open.
  let tab = "";
  const mark = (open) => {
    try {
      sessionStorage.setItem("memorygan-open", open);
    } catch {
      // Storage may be forbidden.
    }
  };
  try {
    tab = sessionStorage.getItem("memorygan-open") === "yes" ? "" : (sessionStorage.getItem("memorygan-tab") ?? "");
    tab ||= Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
    sessionStorage.setItem("memorygan-tab", tab);
  } catch {
    tab = "";
  }
  mark("yes");
  addEventListener("pagehide", () => mark("no"));
  addEventListener("pageshow", () => mark("yes"));

  window.Studio = Studio;
})();
