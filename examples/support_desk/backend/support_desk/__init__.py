"""Customer-support chat: sessions, live answers and a knowledge base behind one small API."""
