"""The only place that names a processor or an instruction.

* `choice`: which instruction set kernels are compiled for, decided once per process;
* `facts`: what follows from it, under names that say what each is for;
* `tuning`: what was measured on some processors, and holds for them;
* `dots`, `moves`, `memory`: a function for each machine operation that lowerings use;
* `models`: the same operations in plain LLVM IR, for processors that lack them;
* `target`: has LLVM leave out instructions that the processor has and the choice has not.
"""
