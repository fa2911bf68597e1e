// Keeps one release of the page, model included, for use without network. A release is cached whole or not at all, and
// serves until its successor has been cached and the reader agrees to it. Nothing that a reader opens comes here.

importScripts("version.js"); // another release has another file, which makes the browser install this worker anew
const PREFIX = `dermdistill ${self.registration.scope} `; // other pages of this origin have caches too
const CACHE = PREFIX + self.RELEASE.version;

self.addEventListener("install", (event) => event.waitUntil(keep()));
self.addEventListener("activate", (event) => event.waitUntil(forget().then(() => self.clients.claim())));
self.addEventListener("message", (event) => event.data === "replace" && self.skipWaiting());
self.addEventListener("fetch", (event) => {
  if (event.request.method === "GET" && event.request.url.startsWith(self.registration.scope)) {
    event.respondWith(answer(event.request));
  }
});

async function keep() {
  const cache = await caches.open(CACHE);
  await Promise.all(
    Object.entries(self.RELEASE.files).map(async ([name, { sha256 }]) => {
      const response = await fetch(name, { cache: "no-cache" });
      if (!response.ok || (await digest(response.clone())) !== sha256) throw new Error(`${name} is of another release`);
      await cache.put(name, response);
    }),
  );
  // Not fetched, since the host may have another release by now.
  const text = `self.RELEASE = ${JSON.stringify(self.RELEASE)};`;
  await cache.put("version.js", new Response(text, { headers: { "Content-Type": "text/javascript" } }));
}

async function forget() {
  for (const name of await caches.keys()) if (name.startsWith(PREFIX) && name !== CACHE) await caches.delete(name);
}

async function answer(request) {
  const cache = await caches.open(CACHE);
  const path = new URL(request.url).pathname;
  const page = path === new URL(self.registration.scope).pathname;
  const kept = await cache.match(page ? "index.html" : request, { ignoreSearch: true });
  return kept ? isolated(kept) : fetch(request);
}

// Threads need these two headers, which many hosts of static files do not send.
function isolated({ body, status, headers }) {
  const more = new Headers(headers);
  more.set("Cross-Origin-Opener-Policy", "same-origin");
  more.set("Cross-Origin-Embedder-Policy", "require-corp");
  return new Response(body, { status, headers: more });
}

async function digest(response) {
  const bytes = new Uint8Array(await crypto.subtle.digest("SHA-256", await response.arrayBuffer()));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
