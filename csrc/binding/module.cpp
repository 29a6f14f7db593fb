// The extension module atoll._core; runtime/atoll/_core.pyi says what it holds.
//
// Threads: Python's. Every call that may wait releases the interpreter lock; no thread of the core
// ever takes it. Only here are errors exceptions.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "atoll/base/limits.h"
#include "atoll/collective/plans/plan.h"
#include "binding/convert.h"

namespace reef::binding {

namespace {

// The bounds of a reduce-scatter's parts.
std::vector<std::uint64_t> part_bounds(std::uint64_t count, Rank members,
                                       const std::string& codec) {
  if (members < 1 || members > limits::kMaxMembers) {
    throw invalid("a view has 1 to " + std::to_string(limits::kMaxMembers) + " members");
  }
  if (count > limits::kMaxVectorBytes) {
    throw invalid("a vector of " + std::to_string(count) + " elements is too long");
  }
  return equal_parts(count, members, granule_of(to_codec(codec)));
}

}  // namespace

}  // namespace reef::binding

PYBIND11_MODULE(_core, module) {
  namespace py = pybind11;
  module.doc() = "The native core: links, collectives, state transfer.";
  reef::binding::define_exception(module);
  reef::binding::define_values(module);
  reef::binding::define_topology(module);
  reef::binding::define_engine(module);
  reef::binding::define_kernels(module);
  module.def("part_bounds", &reef::binding::part_bounds, py::arg("count"), py::arg("members"),
             py::arg("codec"));
}
