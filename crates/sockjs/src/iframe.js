// The inside of SockJS' iframe transports: speaks with the embedding page's client, of any version from 0.3 on, by
// postMessage, and with this server by plain requests.
(function () {
  "use strict";

  var windowId = location.hash.slice(1);
  var embedder = null;
  // Versions before 1.0 put texts together instead of making JSON of them.
  var old = false;
  var receiver = null;
  var base = "";

  function say(type, data) {
    var text = old ? windowId + type + (data || "") : JSON.stringify({ windowId: windowId, type: type, data: data || "" });
    parent.postMessage(text, embedder === null ? "*" : embedder);
  }

  function understand(text) {
    if (text.slice(0, windowId.length) === windowId && windowId) {
      return { type: text.charAt(windowId.length), data: text.slice(windowId.length + 1), old: true };
    }
    try {
      var message = JSON.parse(text);
      return message && message.windowId === windowId ? message : null;
    } catch (_) {
      return null;
    }
  }

  function post(path, body, progress, done) {
    var request = new XMLHttpRequest();
    var seen = 0;
    function lines() {
      for (var end; (end = request.responseText.indexOf("\n", seen)) >= 0; seen = end + 1) {
        progress(request.responseText.slice(seen, end));
      }
    }
    request.open(path === "/info" ? "GET" : "POST", base + path, true);
    request.onprogress = progress && lines;
    request.onload = function () {
      if (progress && request.status === 200) lines();
      done(request.status, request.responseText);
    };
    request.onerror = function () { done(0, ""); };
    request.send(body);
    return request;
  }

  // Asks again and again, for a stream or for a poll, until the server closes the session.
  function receive(path) {
    var request = null;
    var over = false;
    function close(code, reason) {
      if (over) return;
      over = true;
      say("c", JSON.stringify([code, reason]));
    }
    function take(frame) {
      // What comes before a stream's first frame is there to fill buffers.
      if (over || !frame || /^h{2,}$/.test(frame)) return;
      say("t", frame);
      over = over || frame.charAt(0) === "c";
    }
    (function ask() {
      request = post(path, null, take, function (status) {
        if (over) return;
        if (status === 200) ask();
        else close(1006, "the connection broke");
      });
    })();
    // Messages go out in their order: what comes while a request is under way waits for it.
    var waiting = [];
    var sending = false;
    function send() {
      if (over || sending || !waiting.length) return;
      sending = true;
      post("/xhr_send", "[" + waiting.splice(0).join(",") + "]", null, function (status) {
        sending = false;
        if (status === 204 || status === 200) send();
        else close(1006, "a message could not be sent");
      });
    }
    return {
      send: function (text) { waiting.push(text); send(); },
      close: function () { over = true; request.abort(); }
    };
  }

  function inform(url) {
    var began = Date.now();
    base = url.replace(/\/info$/, "");
    var request = post("/info", null, null, function (status, text) {
      var known = {};
      try { known = JSON.parse(text); } catch (_) { status = 0; }
      say("t", JSON.stringify(status === 200 ? [known, Date.now() - began] : []));
    });
    return { send: function () {}, close: function () { request.abort(); } };
  }

  function isHere(url) {
    var link = document.createElement("a");
    link.href = url;
    return link.protocol === location.protocol && link.host === location.host;
  }

  function start(data) {
    var asked = JSON.parse(data);
    var transport = asked[1], url = asked[2];
    if (!isHere(url)) throw new Error("an iframe connects to its own server only");
    if (/info-receiver$/.test(transport)) return inform(url);
    base = url;
    return receive(/polling$/.test(transport) ? "/xhr" : "/xhr_streaming");
  }

  function bootstrap() {
    window.addEventListener("message", function (event) {
      if (event.source !== parent || (embedder !== null && event.origin !== embedder)) return;
      var message = understand(String(event.data));
      if (!message) return;
      embedder = event.origin === "null" ? "*" : event.origin;
      old = Boolean(message.old);
      if (message.type === "s" && !receiver) receiver = start(message.data);
      if (message.type === "m" && receiver) receiver.send(message.data);
      if (message.type === "c" && receiver) {
        receiver.close();
        receiver = null;
      }
    });
    say("s");
    old = true;
    say("s");
  }

  window.SockJS = { bootstrap_iframe: bootstrap };
})();
