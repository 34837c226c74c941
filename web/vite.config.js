import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { brotliCompressSync, gzipSync } from "node:zlib";

const OUTPUT = "../server/spincycle_server/web/dist";
const SMALLEST = 1000; // Bytes. A smaller file fits in one packet anyway.

/** Writes compressed copies beside the files, because the server compresses nothing itself. */
function compressedCopies() {
  return {
    name: "compressed-copies",
    writeBundle(options) {
      for (const name of readdirSync(options.dir, { recursive: true })) {
        const path = join(options.dir, name);
        if (!/\.(html|js|css|svg)$/.test(name)) continue;
        const content = readFileSync(path);
        if (content.length < SMALLEST) continue;
        writeFileSync(`${path}.br`, brotliCompressSync(content));
        writeFileSync(`${path}.gz`, gzipSync(content, { level: 9 }));
      }
    },
  };
}

export default {
  build: {
    outDir: OUTPUT,
    emptyOutDir: true,
    assetsInlineLimit: 0, // The Content-Security-Policy allows no inline content.
    modulePreload: { polyfill: false },
    target: "es2022",
  },
  esbuild: { jsx: "automatic", jsxImportSource: "preact", legalComments: "none" },
  plugins: [compressedCopies()],
};
