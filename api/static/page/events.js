/** Reads server-sent events with fetch(), since EventSource cannot send the API key. */

/** Yields `{event, id, data}` of a text/event-stream answer until it ends. */
export async function* readEvents(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let fields = {};
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines.map((text) => text.replace(/\r$/, ""))) {
        if (line === "") {
          if (fields.data !== undefined) yield { event: "message", ...fields };
          fields = {};
        } else {
          addField(fields, line);
        }
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function addField(fields, line) {
  const [, name, value] = /^([^:]*):? ?(.*)$/.exec(line);
  if (name === "data") fields.data = fields.data === undefined ? value : `${fields.data}\n${value}`;
  else if (name) fields[name] = value; // a line that begins with a colon keeps the connection alive
}
