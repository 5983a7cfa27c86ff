// What of ComfyUI's frontend these files use; host.mjs alone does. Not loaded by a browser: for tsc.

declare module "*/scripts/app.js" {
  export const app: any
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
