"""A guest made of software, to migrate where no confidential hardware is at hand.

Its memory is real memory of this process and its writes are real writes. A private page holds
ciphertext under the key of the host it lives on, with the page's gfn in the tweak, so what
travels on the wrong path decrypts to garbage as it does on the hardware. The guest is sound in
the sense the migration rules ask for: it converts a page before it writes it under the new type,
it writes anew what it converted, and one thread owns each page.

Floor: softguest, above sources and below cli. `migration.migrate` plays a `scenario.Scenario`;
all but `scenario`, `workload`, `layout` and `space` need the `cli` extra (cryptography).
"""
