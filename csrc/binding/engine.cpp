// atoll._core.Engine: its life, membership, events and shared state. ops.cpp has its ops.
#include <pybind11/stl.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "binding/py_engine.h"

namespace reef::binding {

// In slices, so that Ctrl-C is heard.
std::optional<Outcome> PyEngine::wait(OpId op, Nanos timeout) {
  constexpr Nanos kSlice = 100 * kMillisecond;
  const Nanos deadline = to_deadline(timeout);
  while (true) {
    std::optional<Outcome> outcome;
    Nanos left = timeout;
    {
      const py::gil_scoped_release unlocked;
      outcome = engine_->wait(op, std::min(left, kSlice));
      left = deadline == kNever ? kNever : deadline - monotonic_now();
    }
    if (outcome || left <= 0) {
      return outcome;
    }
    timeout = left;
    if (PyErr_CheckSignals() != 0) {
      throw py::error_already_set();
    }
  }
}

void PyEngine::publish(std::uint64_t revision,
                       const std::vector<std::pair<std::uintptr_t, std::uint64_t>>& buffers,
                       py::object keep_alive) {
  Engine::Published state;
  state.revision = revision;
  for (const auto& [address, bytes] : buffers) {
    state.buffers.push_back(memory(address, bytes));
  }
  state.keep_alive = std::shared_ptr<void>(
      keep_alive.release().ptr(),
      [attic = attic_](void* object) { attic->put(static_cast<PyObject*>(object)); });
  {
    const py::gil_scoped_release unlocked;
    engine_->publish(std::move(state));
  }
  attic_->clear();
}

namespace {

std::unique_ptr<PyEngine> create(const py::bytes& peer, const py::bytes& secret,
                                 const std::string& bind_host, std::uint16_t bind_port,
                                 std::uint32_t connections, double heartbeat, double silence,
                                 double dial_timeout, bool shared_memory, double handshake_timeout,
                                 double repair_grace, double keepalive, bool checksums,
                                 const std::string& tls_certificate, const std::string& tls_key,
                                 const std::string& tls_authorities,
                                 const std::string& congestion) {
  EngineOptions options;
  options.self = to_peer(peer);
  options.secret = to_secret(secret);
  options.bind_host = bind_host;
  options.bind_port = bind_port;
  options.connections = connections;
  options.heartbeat = to_nanos(heartbeat, "heartbeat_s");
  options.silence = to_nanos(silence, "silence_s");
  options.dial_timeout = to_nanos(dial_timeout, "dial_timeout_s");
  options.shared_memory = shared_memory;
  options.handshake_timeout = to_nanos(handshake_timeout, "handshake_timeout_s");
  options.repair_grace = to_nanos(repair_grace, "repair_grace_s");
  options.keepalive = keepalive == 0 ? 0 : to_nanos(keepalive, "keepalive_s");
  options.checksums = checksums;
  options.congestion = congestion;
  options.tls = {tls_certificate, tls_key, tls_authorities};
  return std::make_unique<PyEngine>(options);
}

using PyEndpoints = std::vector<std::pair<std::string, std::uint16_t>>;

Endpoints to_endpoints(const PyEndpoints& pairs) {
  Endpoints endpoints;
  for (const auto& [host, port] : pairs) {
    endpoints.push_back({host, port});
  }
  return endpoints;
}

void define_membership(PyClass& engine) {
  engine
      .def("expect",
           [](PyEngine& self, const py::bytes& peer, const PyEndpoints& endpoints,
              const Names& names) {
             self.engine().expect(to_peer(peer), to_endpoints(endpoints), names);
           },
           py::arg("peer"), py::arg("endpoints") = PyEndpoints{}, py::kw_only(),
           py::arg("names") = Names{})
      .def("dial",
           [](PyEngine& self, const py::bytes& peer, const std::string& host,
              std::uint16_t port) { self.engine().dial(to_peer(peer), host, port); },
           py::arg("peer"), py::arg("host"), py::arg("port"))
      .def("dial",
           [](PyEngine& self, const py::bytes& peer, const PyEndpoints& endpoints,
              const Names& names) {
             self.engine().dial(to_peer(peer), to_endpoints(endpoints), names);
           },
           py::arg("peer"), py::arg("endpoints"), py::kw_only(), py::arg("names") = Names{})
      .def("dial",
           [](PyEngine& self, const py::bytes& peer, const PyEndpoints& endpoints,
              const py::bytes& relay, const py::bytes& ticket, const Names& names) {
             self.engine().dial(to_peer(peer), to_endpoints(endpoints), to_peer(relay),
                                to_ticket(ticket), names);
           },
           py::arg("peer"), py::arg("endpoints"), py::arg("relay"), py::arg("ticket"),
           py::kw_only(), py::arg("names") = Names{})
      .def("carry",
           [](PyEngine& self, const py::bytes& one, const py::bytes& other,
              const py::bytes& ticket) {
             self.engine().carry(to_peer(one), to_peer(other), to_ticket(ticket));
           },
           py::arg("one"), py::arg("other"), py::arg("ticket"))
      .def("uncarry",
           [](PyEngine& self, const py::bytes& one, const py::bytes& other) {
             self.engine().uncarry(to_peer(one), to_peer(other));
           },
           py::arg("one"), py::arg("other"))
      .def("drop",
           [](PyEngine& self, const py::bytes& peer) { self.engine().drop(to_peer(peer)); },
           py::arg("peer"))
      .def("fence",
           [](PyEngine& self, std::uint64_t attempt, const std::string& kind) {
             self.engine().fence(attempt, to_change(kind));
           },
           py::arg("attempt"), py::arg("kind"))
      .def("install",
           [](PyEngine& self, Epoch epoch, const std::vector<py::bytes>& members,
              const std::map<Channel, Sequence>& starts, const std::string& kind,
              const py::bytes& topology) {
             View view;
             view.epoch = epoch;
             for (const py::bytes& member : members) {
               view.members.push_back(to_peer(member));
             }
             view.topology = to_topology(topology, view.size());
             self.engine().install(view, starts, to_change(kind));
           },
           py::arg("epoch"), py::arg("members"), py::arg("starts"), py::arg("kind"),
           py::kw_only(), py::arg("topology") = py::bytes());
}

void define_probe(PyClass& engine) {
  engine.def("probe",
             [](PyEngine& self, const py::bytes& peer, double duration, double timeout) {
               Engine::ProbeOptions options;
               options.duration = to_nanos(duration, "duration_s");
               options.timeout = to_nanos(timeout, "timeout_s");
               return take_or_throw(self.engine().probe(to_peer(peer), options));
             },
             py::arg("peer"), py::kw_only(), py::arg("duration_s") = 0.1,
             py::arg("timeout_s") = 5.0);
}

void define_state(PyClass& engine) {
  engine
      .def("publish", &PyEngine::publish, py::arg("revision"), py::arg("buffers"),
           py::arg("keep_alive"))
      .def("unpublish", [](PyEngine& self) { self.engine().unpublish(); })
      .def("fetch",
           [](PyEngine& self, const py::bytes& donor, std::optional<std::uint64_t> revision,
              std::uint32_t buffer, std::uint64_t offset, std::uintptr_t target,
              std::uint64_t length, Nanos timeout) {
             return take_or_throw(self.engine().fetch(to_peer(donor),
                                                      revision.value_or(UINT64_MAX), buffer,
                                                      offset, memory(target, length), timeout));
           },
           py::arg("donor"), py::arg("revision"), py::arg("buffer"), py::arg("offset"),
           py::arg("target"), py::arg("length"), py::arg("timeout_ns"));
}

}  // namespace

void define_engine(py::module_& module) {
  PyClass engine(module, "Engine", py::is_final());
  engine
      .def(py::init(&create), py::kw_only(), py::arg("peer"), py::arg("secret"),
           py::arg("bind_host") = "127.0.0.1", py::arg("bind_port") = 0,
           py::arg("connections") = 2, py::arg("heartbeat_s") = 0.5, py::arg("silence_s") = 5.0,
           py::arg("dial_timeout_s") = 10.0, py::arg("shared_memory") = true,
           py::arg("handshake_timeout_s") = 5.0, py::arg("repair_grace_s") = 1.0,
           py::arg("keepalive_s") = 15.0, py::arg("checksums") = false,
           py::arg("tls_certificate") = "", py::arg("tls_key") = "",
           py::arg("tls_authorities") = "", py::arg("congestion") = "")
      .def_property_readonly("port", [](PyEngine& self) { return self.engine().port(); })
      .def_property_readonly("event_fd", [](PyEngine& self) { return self.engine().event_fd(); })
      .def("take_events", &PyEngine::take_events)
      .def("stats",
           [](PyEngine& self) {
             const py::gil_scoped_release unlocked;
             return self.engine().stats();
           })
      .def("close", &PyEngine::close);
  define_membership(engine);
  define_ops(engine);
  define_probe(engine);
  define_state(engine);
}

}  // namespace reef::binding
