// Replaces the content of an open page when the server says that it is out of date. The pages work without it.
"use strict";
const address = document.body.dataset.live;
const status = document.getElementById("live");
let busy = false;
let again = false;

async function refresh() {
  if (busy) { again = true; return; }
  busy = true;
  try {
    const answer = await fetch(location.href, { credentials: "same-origin" });
    if (!answer.ok) throw new Error(answer.status);
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    const typing = document.activeElement && document.activeElement.id === "q";
    const search = typing ? document.activeElement.value : null;
    const focused = document.activeElement && document.activeElement.getAttribute("href");
    document.title = fresh.title;
    document.getElementById("main").replaceChildren(...fresh.getElementById("main").childNodes);
    if (typing) { const field = document.getElementById("q"); field.value = search; field.focus(); }
    else if (focused) {
      const same = [...document.querySelectorAll("a")].find((link) => link.getAttribute("href") === focused);
      if (same) same.focus({ preventScroll: true });
    }
    status.textContent = "live";
  } catch (error) { status.textContent = "not updated: " + error.message; }
  busy = false;
  if (again) { again = false; refresh(); }
}

if (address && window.EventSource) {
  const source = new EventSource(address);
  source.onopen = () => { status.textContent = "live"; };
  source.onerror = () => { status.textContent = "connection lost, trying again"; };
  source.addEventListener("changed", refresh);
}
