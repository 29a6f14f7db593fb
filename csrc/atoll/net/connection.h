// One connection of a link that is up: frames in, frames out, by whatever means. The reactor thread
// only.
//
// Owned by its Link, which is told of everything (ConnectionOwner) and knows no more of it than this.
// StreamConnection is the one over a byte stream.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "atoll/base/ids.h"
#include "atoll/base/result.h"
#include "atoll/base/time.h"
#include "atoll/net/path.h"
#include "atoll/net/poller.h"
#include "atoll/net/send_queue.h"
#include "atoll/net/tcp_figures.h"
#include "atoll/wire/frame.h"

namespace reef {

class Connection;

// Where a payload is to be received. Empty span: into memory of the connection's own.
struct Destination {
  std::span<std::byte> span;
  OpId op = 0;  // whose memory
};

// What a connection asks of its link. Any call may end the link: look at over() afterwards.
class ConnectionOwner {
 public:
  virtual Destination place(const FrameHeader& header) = 0;
  // A frame has arrived whole. `thrown_away`: its op was forgotten meanwhile, there is no payload.
  virtual Status deliver(Connection& connection, const FrameHeader& header,
                         std::span<const std::byte> payload, bool thrown_away) = 0;
  // A payload for which place() was asked will not arrive here: the connection is given up.
  virtual void displaced(const FrameHeader& header) = 0;
  virtual bool take(Connection& connection, OutFrame& frame) = 0;
  // A frame that was taken or appended is written whole. Only from replaceable connections.
  virtual void wrote(Connection& connection, OutFrame frame) = 0;
  virtual void ready(Connection& connection, std::uint32_t events) = 0;
  virtual void received(std::size_t bytes) = 0;
  virtual void sent(std::size_t bytes) = 0;
  virtual void inside_payload(bool inside) = 0;
  [[nodiscard]] virtual bool over() const = 0;

 protected:
  ~ConnectionOwner() = default;
};

class Connection {
 public:
  virtual ~Connection() = default;

  // Begins to work for `owner`, which outlives it and is told by ready() when there is something to
  // do. Called once, before anything else. Error: io.
  virtual Status start(Poller& poller, ConnectionOwner& owner) = 0;
  // Reads what is there, up to a bound, and delivers whole frames. Error: io (closed or failed) or
  // protocol.
  virtual Status receive() = 0;
  // Writes until the other side takes no more, there is nothing left, or a bound is reached.
  virtual Status flush() = 0;
  // From now on this op's buffers are not touched: what is half written is copied, what is half
  // received is thrown away.
  virtual void forget(OpId op) = 0;
  // Puts a frame behind those that this connection has already taken.
  virtual void append(OutFrame frame) = 0;
  // Whether it holds frames that are not wholly written.
  [[nodiscard]] virtual bool writing() const = 0;
  // Whether it waits for the other side to take more: ready() will tell.
  [[nodiscard]] virtual bool blocked() const = 0;
  // Whether receive() may find something that ready() will not tell of: only after start().
  [[nodiscard]] virtual bool unread() const { return false; }

  // Towards the end. drain() throws away what arrives, and is true at the end of file;
  // finish_writing() says that nothing follows. A retired connection does nothing and hears nothing
  // any more.
  virtual bool drain() = 0;
  virtual void finish_writing() = 0;
  virtual void retire() = 0;
  [[nodiscard]] virtual bool retired() const = 0;
  // Whether another one may take its place when it is lost. Only then does it tell of what it wrote.
  [[nodiscard]] virtual bool replaceable() const { return false; }
  // Gives the connection up: retires it, and the other side finds it closed.
  virtual void cut() { retire(); }
  // What the kernel knows of it; zeros where no TCP is.
  [[nodiscard]] virtual TcpFigures figures() const { return {}; }
  // After cut(): the frames that it had taken and not written whole, in order.
  virtual std::vector<OutFrame> reclaim() { return {}; }

  // What the kernel says of the path. Nothing where there is no network, or the path is short.
  [[nodiscard]] virtual PathCounts path() const { return {}; }
  // The kernel's congestion control begins anew (renew_congestion()).
  virtual void renew() {}

  std::uint32_t slot = 0;  // in its link
  Nanos last_sent = 0;     // for the link's heartbeats
  Nanos last_heard = 0;
};

}  // namespace reef
