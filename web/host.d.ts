// What of ComfyUI's frontend these files use; host.mjs alone does. Not loaded by a browser: for tsc.

interface Graph {
  id?: string
  rootGraph?: Graph
  subgraphs?: Map<string, Graph>
  nodes: any[] // of all packs, with what each puts on them
  serialize(): any
  configure(saved: object): void
  getNodeById(id: string): any
}

interface GraphCanvas {
  graph: Graph
  canvas?: HTMLCanvasElement
  ds: { scale: number; offset: [number, number] }
  default_connection_color_byType: Record<string, string>
  constructor: { link_type_colors?: Record<string, string> }
  setDirty(foreground: boolean, background: boolean): void
  setGraph?(graph: Graph): void
  centerOnNode?(node: object): void
  selectNode?(node: object): void
  convertEventToCanvasOffset(event: PointerEvent): [number, number]
}

interface ListedModel {
  directory: string // "loras"
  normalized_file_name: string // "folder/name.safetensors"
  simplified_file_name: string // "name"
  title: string
}

interface App {
  graph?: Graph
  canvas: GraphCanvas
  nodeOutputs?: Record<string, any>
  extensionManager?: {
    _p?: { _s?: Map<string, { models?: ListedModel[] }> } // private: the host's stores by name
    workflow?: { activeWorkflow?: { path?: string; changeTracker?: { activeState?: any; checkState?(): void } } }
    setting?: { get(name: string): any; set(name: string, value: unknown): Promise<void> }
    toast?: { add(message: { severity: string; summary: string; detail?: string; life: number }): void }
  }
  graphToPrompt(): Promise<{ output: object }>
  registerExtension(extension: object): void
}

declare module "*/scripts/app.js" {
  export const app: App
}
declare module "*/scripts/api.js" {
  export const api: {
    fetchApi(path: string, options?: RequestInit): Promise<Response>
    apiURL(path: string): string
    addEventListener(event: string, handle: (event: CustomEvent) => void): void
  }
}

interface Badge {
  text: string
  height: number
  getWidth(context: CanvasRenderingContext2D): number
  draw(context: CanvasRenderingContext2D, x: number, y: number): void
}

interface Window {
  LiteGraph?: { vueNodesMode?: boolean }
  LGraphBadge: new (options: { text: string; fgColor: string; bgColor: string }) => Badge
}
