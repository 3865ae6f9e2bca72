"""Customer-support chat: sessions, live answers and a knowledge base behind one small API."""

import gc

# What imports make lives as long as the process, and looking for garbage in it takes a fifth of the time to boot. create_app() goes
# on with it.
gc.disable()
