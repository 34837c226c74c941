/** Says that a part of the page is broken, where otherwise nothing would be shown. */

import { Component, type ComponentChildren } from "preact";

interface Props {
  children: ComponentChildren;
}

export class Boundary extends Component<Props, { message: string }> {
  override state = { message: "" };

  override componentDidCatch(error: unknown): void {
    console.error(error);
    this.setState({ message: error instanceof Error ? error.message : String(error) });
  }

  override render() {
    if (!this.state.message) return this.props.children;
    return (
      <p class="notice notice-error" role="alert">
        This view has a defect: {this.state.message}. Load the page again. The command line spinc shows the
        same.
      </p>
    );
  }
}
