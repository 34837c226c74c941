/** One line of output. */

import { classesOf, type Span } from "../model/ansi";
import { lineName } from "../model/fragment";
import { marked } from "../model/marks";
import { spansOf, type OutputLine } from "../model/output-lines";

export const LINE_HEIGHT = 20; // Pixels, as in the style.

interface Props {
  line: OutputLine;
  /** Changes with the text of the line, which is written piece by piece. */
  version: number;
  text: string;
  isFound: boolean;
  isChosen: boolean;
  onChoose: (line: OutputLine) => void;
}

export function OutputRow({ line, text, isFound, isChosen, onChoose }: Props) {
  if (line.number === 0) return <div class="line line-notice">{line.text}</div>;
  const classes = ["line", `line-${line.stream}`, isChosen ? "is-chosen" : "", isFound ? "is-found" : ""];
  return (
    <div class={classes.filter(Boolean).join(" ")}>
      <button
        class="line-number"
        aria-label={`${lineName(line)}: link to line ${line.number} of ${line.stream}`}
        tabIndex={-1}
        onClick={() => onChoose(line)}
      >
        {lineName(line)}
      </button>
      <span class="line-text">
        {spansOf(line).map((span, index) => (
          <Text key={index} span={span} text={text} />
        ))}
      </span>
    </div>
  );
}

function Text({ span, text }: { span: Span; text: string }) {
  const classes = classesOf(span.style);
  if (!text) return <span class={classes}>{span.text}</span>;
  return (
    <span class={classes}>
      {marked(span.text, text).map((part, index) =>
        part.isMatch ? <mark key={index}>{part.text}</mark> : part.text,
      )}
    </span>
  );
}
