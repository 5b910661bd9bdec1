"""The same three-row sweep, written in other ways; each file has one `js_of(task)`."""
