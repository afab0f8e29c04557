// Between Gradio's client and the network: a connection that is cut is taken up where it was, what could not be sent is
// sent again, and a server that forgot this page (it was started anew, for example) is told the face from the browser.
// Gradio itself would load the page anew, and drop what was being done.
(() => {
  if (window.StudioLink) return;
  const plain = window.fetch.bind(window);
  const encoder = new TextEncoder();
  const PAUSES = [300, 700, 1500, 3000]; // milliseconds between attempts
  const pending = new Map(); // event, as Gradio's client knows it → what was asked for
  const names = new Map(); // event on the server → as Gradio's client knows it, where the two differ
  const ended = new Set(); // events whose end came before their name
  const joining = new Set(); // what was asked for and not answered yet
  let cut = false;
  let sign = ""; // with which private Spaces know who asks
  let restoring = null;
  let checked = Date.now();

  const sleep = (time) => new Promise((done) => setTimeout(done, time));
  const fresh = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");

  function report(now) {
    if (cut === now) return;
    cut = now;
    Studio.say(now ? "The server cannot be reached. Trying again …" : "The connection is back.", now);
  }

  /** The answer of a server that can be reached; asks until it can. */
  async function reach(ask, signal) {
    for (let attempt = 0; ; attempt++) {
      try {
        const answer = await ask();
        if (answer.status !== 502 && answer.status !== 504) {
          report(false);
          if (answer.status === 401) location.reload(); // logged out; the page asks for the login
          return answer;
        }
      } catch (error) {
        if (signal?.aborted || error.name === "AbortError") throw error;
      }
      report(true);
      await sleep(PAUSES[Math.min(attempt, PAUSES.length - 1)]);
      if (signal?.aborted) throw new DOMException("aborted", "AbortError");
    }
  }

  const root = (address) => address.slice(0, address.indexOf("/gradio_api/") + "/gradio_api".length);
  const session = (init) => JSON.parse(init.body).session_hash;

  function call(base, name, hash, data) {
    const body = JSON.stringify({ data, session_hash: hash });
    return reach(() => plain(`${base}/run/${name}${sign}`, { method: "POST", headers: { "Content-Type": "application/json" }, body }));
  }

  /** Has the server open the face that the browser kept. One at a time, however many ask. */
  function restore(base, hash) {
    restoring ??= (async () => {
      const now = Studio.face;
      const kept = { ...Studio.kept(), id: now?.id ?? 0, n: now?.n ?? 0 };
      const answer = await call(base, "restore", hash, [null, kept]);
      if (!answer.ok) throw new Error("the face could not be restored");
      Studio.say("The server had forgotten this page. Your face is back; earlier steps and a photo are not.");
      // What was sent to be done before comes first, or it would be shown undone for a moment.
      setTimeout(() => Studio.emit("refresh"), 1500);
    })().finally(() => { restoring = null; });
    return restoring;
  }

  /** Whether the first answer of the server has come, so that there is something to restore. */
  async function loaded() {
    for (let waited = 0; waited < 15000; waited += 100) {
      if (Studio.face?.n > 0) return true;
      await sleep(100);
    }
    return false;
  }

  async function send(address, init) {
    for (let attempt = 0; ; attempt++) {
      const answer = await reach(() => plain(address, init), init?.signal);
      if (answer.status !== 410 || attempt === 3) return answer;
      const early = !(Studio.face?.n > 0);
      if (!(await loaded())) return answer;
      if (!early) await restore(root(address), session(init));
    }
  }

  async function join(address, init) {
    const asked = send(address, init).then(async (answer) => {
      if (answer.ok) {
        const { event_id: event } = await answer.clone().json();
        if (event && !ended.delete(event)) pending.set(event, { address, init, told: false, anew: false });
      }
      return answer;
    });
    joining.add(asked);
    return asked.finally(() => joining.delete(asked));
  }

  /** Asks again for what is not known to have ended; yields what Gradio's client has to be told of it. */
  async function ask() {
    const problems = [];
    for (const [event, asked] of [...pending]) {
      const answer = await send(asked.address, asked.init);
      const told = await answer.json().catch(() => ({}));
      if (answer.ok && told.event_id) {
        names.set(told.event_id, event);
        asked.anew = true;
      } else {
        pending.delete(event);
        const error = String(told.detail ?? "This did not work; try again.");
        problems.push({ msg: "process_completed", event_id: event, success: false, output: { error, visible: true }, title: "That did not work" });
      }
    }
    return problems;
  }

  async function* messages(stream) {
    const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const parts = (rest + value).split("\n\n");
      rest = parts.pop();
      yield* parts;
    }
  }

  /** A message as Gradio's client has to see it. */
  function translated(text) {
    const message = JSON.parse(text.slice(text.indexOf("data:") + 5));
    const event = names.get(message.event_id) ?? message.event_id;
    const asked = pending.get(event);
    let changed = event !== message.event_id;
    if (asked && message.msg === "process_generating") {
      if (asked.anew && asked.told && message.output?.data) {
        // The first of a new run is whole; the client expects what differs from the last one it saw.
        message.output.data = message.output.data.map((value) => [["replace", [], value]]);
        changed = true;
      }
      asked.told = true;
      asked.anew = false;
    }
    if (message.msg === "process_completed" && !pending.delete(event)) ended.add(event);
    if (!changed) return [message, text];
    message.event_id = event;
    return [message, `data: ${JSON.stringify(message)}`];
  }

  function follow(request) {
    const signal = request.signal;
    const stream = new ReadableStream({
      async start(controller) {
        const pass = (text) => controller.enqueue(encoder.encode(`${text}\n\n`));
        let name = fresh();
        let after = 0;
        let known = false; // whether the server has this stream
        for (;;) {
          const address = new URL(request.url);
          address.searchParams.set("link", name);
          address.searchParams.set("after", after);
          const answer = await reach(() => plain(address, { headers: request.headers, credentials: request.credentials, signal }), signal);
          let lost = answer.status === 410;
          let closed = false;
          if (answer.ok) {
            known = true;
            try {
              for await (const text of messages(answer.body)) {
                after++;
                const [message, said] = translated(text);
                if (message.msg === "unexpected_error" && !message.event_id) {
                  lost = true;
                  break;
                }
                closed = message.msg === "close_stream";
                if (closed) break;
                pass(said);
              }
            } catch {
              // The connection was cut.
            }
          }
          if (signal.aborted) return controller.close();
          if (closed || lost || !(answer.ok || known)) {
            // What was asked for while the server closed the stream comes in another one; Gradio's client, for which this
            // one was open, would wait for ever.
            if (closed) await Promise.allSettled([...joining]);
            else for (const problem of await ask()) pass(`data: ${JSON.stringify(problem)}`);
            if (!pending.size) {
              pass('data: {"msg":"close_stream"}');
              return controller.close();
            }
            name = fresh();
            after = 0;
          }
          if (!closed) await sleep(PAUSES[0]);
        }
      },
    });
    return Promise.resolve(new Response(stream, { status: 200, headers: { "Content-Type": "text/event-stream" } }));
  }

  /** The stream that tells the server that the page is open; when it was cut, whether the server still knows it. */
  function heartbeat(request) {
    const signal = request.signal;
    const [base, hash] = [root(request.url), request.url.split("/heartbeat/")[1].split(/[?/]/)[0]];
    const check = async () => {
      checked = Date.now();
      if (!(Studio.face?.n > 0)) return;
      const answer = await call(base, "alive", hash, [null]);
      const known = answer.ok && (await answer.json()).data?.[0]?.known;
      if (answer.ok && !known) await restore(base, hash);
    };
    const look = () => document.visibilityState === "visible" && Date.now() - checked > 30000 && check().catch(console.debug);
    document.addEventListener("visibilitychange", look);
    addEventListener("online", look);
    const stream = new ReadableStream({
      async start(controller) {
        for (let times = 0; !signal?.aborted; times++) {
          try {
            const answer = await reach(() => plain(request.url, { headers: request.headers, credentials: request.credentials, signal }), signal);
            if (times) await check();
            const reader = answer.body.getReader();
            for (;;) {
              const { value, done } = await reader.read();
              if (done) break;
              controller.enqueue(value);
            }
          } catch {
            // Cut, or the page is closed.
          }
          await sleep(PAUSES[2]);
        }
      },
    });
    return Promise.resolve(new Response(stream, { status: 200, headers: { "Content-Type": "text/event-stream" } }));
  }

  window.fetch = (input, init) => {
    const address = input instanceof Request ? input.url : new URL(String(input), location.href).href;
    const { pathname: path, searchParams } = new URL(address);
    if (searchParams.has("__sign")) sign = `?${new URLSearchParams({ __sign: searchParams.get("__sign") })}`;
    if (path.endsWith("/gradio_api/queue/join")) return join(address, init);
    if (path.endsWith("/gradio_api/queue/data")) return follow(input instanceof Request ? input : new Request(input, init));
    if (path.includes("/gradio_api/heartbeat/")) return heartbeat(input instanceof Request ? input : new Request(input, init));
    return plain(input, init);
  };
  window.StudioLink = { pending };
})();
