// The bytes under a connection: an ordered stream in both directions that never blocks. The reactor
// thread only.
//
// A stream owns its socket. Whoever uses it watches fd() and calls read() and write() when that is
// ready; one virtual call stands for at least one system call's worth of work.
#pragma once

#include <sys/uio.h>

#include <cerrno>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "atoll/net/fd.h"

namespace reef {

// What became of one read or write. EAGAIN: nothing for now, wait until fd() is ready.
struct IoResult {
  std::size_t bytes = 0;
  int error = 0;  // an errno, with 0 bytes; never EINTR
};

class Stream {
 public:
  virtual ~Stream() = default;
  [[nodiscard]] virtual int fd() const = 0;
  // What comes before the first byte (a TLS handshake): call it until it returns no error, whenever
  // fd() is readable, or writable while holds_output(). EPROTO: one side has refused, and explain()
  // says why; any other error: the connection broke.
  virtual IoResult secure() { return {}; }
  // Reads into the parts, one after the other. 0 bytes without an error: the end of the stream.
  virtual IoResult read(std::span<const iovec> parts) = 0;
  // Writes from the parts, one after the other, as much as it can take now.
  virtual IoResult write(std::span<const iovec> parts) = 0;
  // A stream may have taken more from the socket than read() has returned, of which the poller knows
  // nothing: read_held() is a read() that leaves the socket alone. And write() may have taken what
  // the socket would not: flush() goes on with it.
  [[nodiscard]] virtual bool holds_input() const { return false; }
  virtual IoResult read_held(std::span<const iovec>) { return {0, EAGAIN}; }
  [[nodiscard]] virtual bool holds_output() const { return false; }
  virtual IoResult flush() { return {}; }
  // Says the end of the stream to the other side; reading goes on.
  virtual void finish_writing() = 0;
  // Gives up the socket, as it is; the stream is then good for nothing.
  virtual Fd release() = 0;
  // The name in the other side's certificate, once secure() is through: its one URI. Empty: it shows
  // no certificate, or one that names nobody or several.
  [[nodiscard]] virtual std::string holder() const { return {}; }
  // An error of this stream in words.
  [[nodiscard]] virtual std::string explain(int error) const = 0;
};

// Those of one link, in the order of their index.
using Streams = std::vector<std::unique_ptr<Stream>>;

// One part, for callers that have only that.
inline IoResult read_some(Stream& stream, std::span<std::byte> into) {
  const iovec part{into.data(), into.size()};
  return stream.read({&part, 1});
}
inline IoResult write_some(Stream& stream, std::span<const std::byte> from) {
  const iovec part{const_cast<std::byte*>(from.data()), from.size()};
  return stream.write({&part, 1});
}

}  // namespace reef
