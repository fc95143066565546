"""A guest made of software, to migrate where no confidential hardware is at hand.

Its memory is real memory of this process and its writes are real writes. A private page holds
ciphertext under the key of the host it lives on, with the page's gfn in the tweak, so what
travels on the wrong path decrypts to garbage as it does on the hardware. The guest is sound in
the sense the migration rules ask for: it converts a page before it writes it under the new type,
it writes anew what it converted, and one thread owns each page.

The scenario, the layout, the workloads, the rounds, the link, the comparison and the report serve
any guest, that of `kvmguest` too.

Floor: softguest, above testing and below kvmguest. `migration.migrate` plays a `scenario.Scenario`;
all but `scenario`, `workload` and `layout` need the `cli` extra (cryptography).
"""
