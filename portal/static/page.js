// Renews the page when records have changed. Without this script the page is the same, and is renewed by hand.
"use strict";

const list = () => document.getElementById("list");
const news = document.getElementById("news");
const every = Number(document.body.dataset.every || 60) * 1000;
let tag = document.body.dataset.tag;
let source = null;
let renewing = false;
let again = false;
let patience = 1000;

async function renew() {
  if (renewing) { again = true; return; }
  renewing = true;
  try {
    const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
    if (answer.redirected) { location.reload(); return; }
    if (!answer.ok) throw new Error(answer.status);
    show(new DOMParser().parseFromString(await answer.text(), "text/html"));
    patience = 1000;
  } catch { // away: whatever it was that called for this is still to be shown
    patience = Math.min(patience * 2, 60000);
    setTimeout(() => { if (!document.hidden) renew(); }, patience);
  }
  finally {
    renewing = false;
    if (again) { again = false; renew(); }
  }
}

function show(page) {
  const fresh = page.body.dataset.tag;
  const known = new Set(Array.from(document.querySelectorAll("[data-id]"), (one) => one.dataset.id));
  for (const id of ["list", "up-to"]) {
    const [before, after] = [document.getElementById(id), page.getElementById(id)];
    if (!before || !after || before.innerHTML === after.innerHTML) continue;
    const open = new Set(Array.from(before.querySelectorAll("details[open]"), (one) => one.id));
    for (const one of after.querySelectorAll("details")) one.open = one.open || open.has(one.id);
    before.replaceChildren(...after.childNodes);
  }
  if (!fresh || fresh === tag) return;
  tag = fresh;
  for (const one of list().querySelectorAll("[data-id]")) if (!known.has(one.dataset.id)) one.classList.add("fresh");
  news.textContent = news.dataset.renewed;
  setTimeout(() => { news.textContent = ""; }, 8000);
}

function listen() {
  if (tag === undefined || source) return;
  source = new EventSource(`/events?seen=${encodeURIComponent(tag)}`);
  source.addEventListener("changed", renew);
  source.addEventListener("open", () => live(true));
  source.addEventListener("error", () => {
    live(false);
    if (source && source.readyState === EventSource.CLOSED) {
      source = null;
      setTimeout(() => { if (!document.hidden) { listen(); renew(); } }, 5000);
    }
  });
}

function live(is) {
  for (const one of document.querySelectorAll(".live")) one.hidden = !is;
}

// A hidden page lets go of its connection: browsers give a site six of them in all.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) { if (source) source.close(); source = null; } else { listen(); renew(); }
});
setInterval(() => { if (!document.hidden) renew(); }, every);
listen();
