// Runs the WebSocket example of the API document for contributors as it stands, but for its placeholders.
// Usage: node example.mjs DOCUMENT BASE-URL TOKEN CAMPAIGN. Prints what the script logs; ends when its socket closes.
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import WebSocket from "ws";

export function example(text, base, token, campaign) {
  const script = text.match(/```\n(const socket = new WebSocket\([\s\S]*?)```/)[1];
  const scheme = base.startsWith("https") ? "wss" : "ws";
  return script
    .replace("wss://<your-base-url>", `${scheme}://${new URL(base).host}`)
    .replace("<auth-token>", JSON.stringify(token))
    .replace("<campaign-id>", String(campaign));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [document, base, token, campaign] = process.argv.slice(2);
  process.env.NODE_TLS_REJECT_UNAUTHORIZED = "0";
  const script = example(readFileSync(document, "utf8"), base, token, campaign);
  const socket = new Function("WebSocket", "console", `${script}\nreturn socket;`)(WebSocket, console);
  socket.addEventListener("error", (event) => { console.error(event.message); process.exitCode = 1; });
}
