// Has Gradio's script hear that a question is taken only once it knows of every stream of answers that its server had
// closed by then. Else it would wait for the answer on a stream that is closed; see streams.py, which counts them.
(() => {
  const STREAM = "/gradio_api/queue/data", JOIN = "/gradio_api/queue/join", LONGEST_MS = 5000;
  const page = Array.from(crypto.getRandomValues(new Uint32Array(4)), (part) => part.toString(36)).join("");
  const plain = window.fetch;
  const waiting = new Set();
  let known = 0;
  const closed = () => {
    known += 1;
    for (const look of waiting) look();
  };
  const knows = (count) =>
    new Promise((done) => {
      const look = () => {
        if (known < count) return;
        waiting.delete(look);
        done();
      };
      waiting.add(look);
      look();
      // A stream that broke off is never read to its end: it is waited for once.
      setTimeout(() => {
        known = Math.max(known, count);
        look();
      }, LONGEST_MS);
    });

  window.fetch = async (input, init) => {
    const path = new URL(input.url ?? input, location.href).pathname;
    if (!path.endsWith(STREAM) && !path.endsWith(JOIN)) return plain(input, init);
    const request = new Request(input, init);
    request.headers.set("X-Modiste-Page", page);
    // Gradio's script gives a stream up once it has read that it is closed.
    if (path.endsWith(STREAM)) request.signal.addEventListener("abort", closed);
    const response = await plain(request);
    if (path.endsWith(JOIN)) await knows(Number(response.headers.get("X-Modiste-Closed")));
    return response;
  };
})();
