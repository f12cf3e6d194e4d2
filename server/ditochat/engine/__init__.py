"""An Engine.IO 4 server for python-socketio: a pure core, thin asyncio shells."""
