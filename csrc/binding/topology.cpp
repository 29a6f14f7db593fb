// atoll._core.Topology: what the core makes of a view's measured links, for tests and for people.
#include "atoll/topology/topology.h"

#include <pybind11/stl.h>

#include <string>
#include <string_view>
#include <utility>

#include "atoll/base/limits.h"
#include "atoll/collective/planning.h"
#include "atoll/topology/cost_model.h"
#include "binding/convert.h"

namespace reef::binding {

namespace {

constexpr const char* kPlanNames[kPlanKinds] = {"ring", "direct", "doubling", "grouped", "mesh"};

std::shared_ptr<const Topology> parse(const py::bytes& bytes) {
  const std::string_view view = bytes;
  const auto span = std::as_bytes(std::span(view.data(), view.size()));
  const py::gil_scoped_release unlocked;
  return take_or_throw(parse_topology(span));
}

PlanChoice chosen(const Topology& topology, std::uint64_t wire_bytes, std::uint64_t chunk_bytes) {
  return choose(&topology, PlanRequest::of(topology.members, wire_bytes, chunk_bytes), {});
}

// The plan and the chunks, in bytes of the vector, that an all-reduce of floats would take in a view
// of so many members.
py::tuple plan_all_reduce(std::uint64_t count, Rank members, const std::string& codec,
                          const std::shared_ptr<Topology>& topology) {
  if (members < 1) throw invalid("a view has at least one member");
  if (topology != nullptr && topology->members != members) {
    throw invalid("a topology of " + std::to_string(topology->members) + " members is not one of " +
                  std::to_string(members));
  }
  OpRequest request;
  request.kind = OpKind::all_reduce;
  request.codec.id = to_codec(codec);
  request.count = count;
  View view;
  view.members.resize(members);
  view.topology = topology;
  const Choice choice = choose(request, view, CoreOptions{});
  return py::make_tuple(plan_name(choice.plan), choice.chunk_bytes);
}

py::dict unmeasured(Rank members, std::uint64_t wire_bytes, std::uint64_t chunk_bytes,
                    double slowest_bytes_per_s, double latency_s, double ring_latency_s,
                    double ring_s_per_byte) {
  if (members < 2) throw invalid("nobody exchanges in a view of one");
  const Bounds bounds{latency_s, {slowest_bytes_per_s, ring_latency_s, ring_s_per_byte}};
  const PlanRequest request = PlanRequest::of(members, wire_bytes, chunk_bytes);
  py::dict seconds;
  for (std::size_t i = 0; i < kPlanKinds; ++i) {
    seconds[kPlanNames[i]] = unmeasured_seconds(static_cast<PlanKind>(i), bounds, request);
  }
  return seconds;
}

}  // namespace

std::shared_ptr<const Topology> to_topology(const py::bytes& bytes, Rank members) {
  if (py::len(bytes) == 0) return nullptr;
  auto topology = parse(bytes);
  if (topology->members != members) {
    throw invalid("a topology of " + std::to_string(topology->members) +
                  " members came with a view of " + std::to_string(members));
  }
  return topology;
}

void define_topology(py::module_& module) {
  using Class = py::class_<Topology, std::shared_ptr<Topology>>;
  Class(module, "Topology", py::is_final())
      .def(py::init(
               [](const py::bytes& bytes) { return std::make_shared<Topology>(*parse(bytes)); }),
           py::arg("encoded"))
      .def_readonly("members", &Topology::members)
      .def_property_readonly("ring", [](const Topology& self) { return self.derived.ring; })
      .def_property_readonly("sites", [](const Topology& self) { return self.derived.site; })
      .def_property_readonly("part_weights",
                             [](const Topology& self) { return self.derived.part_weights; })
      .def(
          "link",
          [](const Topology& self, Rank from, Rank to) {
            if (from >= self.members || to >= self.members) throw invalid("no such rank");
            const LinkFigures& link = self.link(from, to);
            return std::pair(link.bytes_per_s, link.rtt_s);
          },
          py::arg("sender"), py::arg("receiver"))
      .def(
          "predict",
          [](const Topology& self, std::uint64_t wire_bytes, std::uint64_t chunk_bytes) {
            const PlanChoice choice = chosen(self, wire_bytes, chunk_bytes);
            py::dict seconds;
            for (std::size_t i = 0; i < kPlanKinds; ++i) {
              seconds[kPlanNames[i]] = choice.seconds[i];
            }
            return seconds;
          },
          py::arg("wire_bytes"), py::arg("chunk_bytes") = std::uint64_t{limits::kMostChunkBytes})
      .def(
          "choose",
          [](const Topology& self, std::uint64_t wire_bytes) {
            const PlanChoice choice = chosen(self, wire_bytes, limits::kMostChunkBytes);
            return kPlanNames[static_cast<std::size_t>(choice.plan)];
          },
          py::arg("wire_bytes"));
  module.def("plan_all_reduce", &plan_all_reduce, py::arg("count"), py::arg("members"),
             py::arg("codec") = "fp32", py::arg("topology") = nullptr);
  module.def("unmeasured_seconds", &unmeasured, py::arg("members"), py::arg("wire_bytes"),
             py::arg("chunk_bytes"), py::arg("slowest_bytes_per_s"), py::arg("latency_s"),
             py::arg("ring_latency_s"), py::arg("ring_s_per_byte"));
}

}  // namespace reef::binding
