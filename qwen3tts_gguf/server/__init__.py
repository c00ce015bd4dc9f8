"""The HTTP server behind `qwen3tts serve`: one loaded model, spoken with by many clients.

    settings   what the server is started with             problems   errors as OpenAI's error object
    model      the one TTS: loaded on first use            scheduler  who speaks next, and who waits
    voices     names to voices                             pace       how fast this machine turns out to be
    encoding   samples to WAV, MP3, Opus, FLAC, AAC, PCM   record     what is noted of a request
    speech_fields  the JSON of a request                   answer     a request is spoken, encoded and sent
    long_speech    a text of several passages              framing  what is sent around the sound
    guard      keys, hosts, origins, sizes, the log        metrics    counters for Prometheus
    services   what every wire works with                  docs_page  /docs
    openai_speech  openai_models  voice_routes             app        all of it as one ASGI application
    conversation   text that still arrives, spoken         arriving_text  what of it is there
    speech_messages  speech_socket    our WebSocket        sockets  socket_routes  what WebSockets share
    elevenlabs_messages  elevenlabs_socket  elevenlabs_routes  elevenlabs_formats
    wyoming_events  wyoming_server

Everything but the encoders and the preparation of speeches runs on one event loop, which never makes a native call.
"""
