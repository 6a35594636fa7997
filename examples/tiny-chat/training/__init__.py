"""Parts of the tiny-chat trainer; the serving code in `model/` imports nothing from here."""
