// Shows the first face while Gradio's own scripts are still being loaded; the stage takes it away.
(() => {
  const first = document.getElementById("studio-first").textContent;
  const wanted = new URLSearchParams(location.search).get("__theme");
  let stored = null;
  try {
    stored = localStorage.getItem("memorygan-theme");
    // Somebody who comes back gets their own face in a moment; another one first would only confuse.
    Studio.returning = Boolean(Studio.kept().recipe);
  } catch {
    // Storage may be forbidden.
  }
  const theme = wanted ?? stored ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  const dark = theme === "dark";
  const style = `
    #studio-splash { position: fixed; inset: 0; z-index: 100; overflow: hidden; pointer-events: none;
      background: ${dark ? "#0b1020" : "#f8fafc"}; color: ${dark ? "#e2e8f0" : "#1e293b"}; font: 14px system-ui, sans-serif; }
    #studio-splash div { box-sizing: border-box; max-width: 1280px; margin: 0 auto; padding: 20px; }
    #studio-splash b { display: block; height: 62px; font-size: 20px; padding-left: 52px; line-height: 44px; }
    #studio-splash i { display: block; width: min(46%, 512px); aspect-ratio: 1; border-radius: 14px; margin-top: 43px;
      background: ${dark ? "#131a2e" : "#e2e8f0"} center / cover; }
    @media (max-width: 860px) { #studio-splash div { padding: 12px; } #studio-splash i { width: 100%; max-width: 512px; } }`;
  const show = () => {
    if (Studio.face) return;
    const picture = Studio.make("i", { role: "img", "aria-label": "The first face; the page is loading" });
    if (first && !Studio.returning) picture.style.backgroundImage = `url("${first}")`;
    const box = Studio.make("div", {}, Studio.make("b", {}, "MemoryGAN Studio"), picture);
    document.body.append(Studio.make("div", { id: "studio-splash" }, Studio.make("style", {}, style), box));
    // Whatever goes wrong, the page itself must come to light.
    setTimeout(Studio.clearSplash, 60000);
  };
  Studio.clearSplash = () => document.getElementById("studio-splash")?.remove();
  show();
})();
