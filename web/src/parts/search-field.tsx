/** A field that finds something while a text is typed. */

interface Props {
  label: string;
  /** Default: the label. */
  placeholder?: string;
  text: string;
  onText: (text: string) => void;
  onKeyDown?: (event: KeyboardEvent) => void;
}

export function SearchField({ label, placeholder = label, text, onText, onKeyDown }: Props) {
  return (
    <input
      type="search"
      aria-label={label}
      placeholder={placeholder}
      value={text}
      onInput={(event) => onText(event.currentTarget.value)}
      onKeyDown={onKeyDown}
    />
  );
}
