// Values under the pointer or finger, and tables that a click on a head sorts. Everything is on the page already.
const tip = document.body.appendChild(document.createElement('div'))
tip.id = 'tip'
tip.hidden = true
for (const group of document.querySelectorAll('svg .values')) {
  const figure = group.closest('svg')
  const marks = [...group.children].map(mark => {
    const title = mark.querySelector('title')
    title.remove() // ours is at once, and on phones
    return { mark, text: title.textContent, x: +mark.getAttribute('cx'), y: +mark.getAttribute('cy') }
  })
  let shown = null
  const leave = () => { shown?.mark.classList.remove('on'); shown = null; tip.hidden = true }
  const point = event => {
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(figure.getScreenCTM().inverse())
    const far = mark => Math.hypot(mark.x - at.x, mark.y - at.y)
    const near = marks.reduce((best, mark) => far(mark) < far(best) ? mark : best)
    if (near !== shown) leave()
    if (far(near) > 24) return leave()
    shown = near
    near.mark.classList.add('on')
    tip.textContent = near.text
    tip.hidden = false
    const left = Math.min(event.clientX + 12, innerWidth - tip.offsetWidth - 8)
    tip.style.left = Math.max(8, left) + 'px'
    tip.style.top = Math.max(8, event.clientY - tip.offsetHeight - 12) + 'px'
  }
  figure.addEventListener('pointermove', point)
  figure.addEventListener('pointerdown', point)
  figure.addEventListener('pointerleave', leave)
}
const number = text => {
  const clock = /^(\d+):(\d\d)(?::(\d\d))?$/.exec(text)
  if (clock) return clock.slice(1).reduce((all, part) => part === undefined ? all : all * 60 + +part, 0)
  return parseFloat(text.replaceAll(',', '').replace('−', '-'))
}
for (const table of document.querySelectorAll('table.sortable')) {
  const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells]
  heads.forEach((head, column) => {
    const sort = () => {
      const down = head.getAttribute('aria-sort') !== 'descending'
      heads.forEach(other => other.removeAttribute('aria-sort'))
      head.setAttribute('aria-sort', down ? 'descending' : 'ascending')
      const key = row => row.cells[column].textContent.trim()
      const order = (a, b) => {
        const [x, y] = [number(key(a)), number(key(b))]
        if (isNaN(x) || isNaN(y)) {
          if (isNaN(x) && isNaN(y)) return (down ? 1 : -1) * key(a).localeCompare(key(b))
          return isNaN(x) ? 1 : -1 // what has no number stays at the end
        }
        return down ? y - x : x - y
      }
      body.append(...[...body.rows].sort(order))
    }
    head.tabIndex = 0
    head.addEventListener('click', sort)
    head.addEventListener('keydown', event => { if (event.key === 'Enter') sort() })
  })
}
